"""Many callers, slow callers and few file descriptors: F18, F21, F22. What they cost in memory is printed."""

import asyncio
import json
import time

from support.fakes import SECRET, FakeProvider, FakeUpstream, config
from support.http import Broken, Connection, Load, get
from support.process import Sidecar
from support.report import Check

IDLE = 10_000  # half of the 20,000 descriptors that a process has here: the callers' ends are another process's
HEADER_TIMEOUT = 10


async def main(check: Check) -> None:
    check.secret("client secret", SECRET)
    provider = await FakeProvider(check).start()
    upstream = await FakeUpstream(check, provider).start()
    settings = config(provider.server.url, upstream.server.url)
    await idle(check, settings)
    await slow(check, settings)
    for workers, served in ((1, 14), (4, 5)):
        await few_descriptors(check, settings, workers, served)


async def start(check: Check, settings: str, name: str, env: dict | None = None) -> Sidecar:
    sidecar = await Sidecar.run(check, settings, {"CLIENT_SECRET": SECRET, **(env or {})}, name)
    while (await get(sidecar.admin, "/readyz")).status != 200:
        await asyncio.sleep(0.02)
    return sidecar


async def idle(check: Check, settings: str) -> None:
    """F21: idle connections cost little, and those beyond `max_connections` are told so at once."""
    sidecar = await start(check, settings, "idle", {"ATTACHE__PROXY__MAX_CONNECTIONS": str(IDLE)})
    await get(sidecar.proxy, "/")
    before = sidecar.memory()
    connections = []
    for _ in range(0, IDLE, 100):
        connections += await asyncio.gather(*[Connection.open(sidecar.proxy) for _ in range(100)])
    over = []
    for _ in range(20):
        began = time.monotonic()
        try:
            status = (await asyncio.wait_for(get(sidecar.proxy, "/"), 5)).status
        except (Broken, TimeoutError) as error:
            status = repr(error)
        over.append((status, time.monotonic() - began))
    check.that(all(status == 503 for status, _ in over), f"beyond max_connections: 20 of 20 get 503 {set(s for s, _ in over)}")
    check.that(max(took for _, took in over) < 0.1, f"in {max(took for _, took in over) * 1000:.0f} ms at most")
    fresh = sidecar.memory() - before
    check.that(fresh / IDLE < 8_000, f"{IDLE} idle connections: {fresh / 1e6:.1f} MB, {fresh / IDLE:.0f} bytes each")

    answers = 0
    for begin in range(0, IDLE, 500):
        found = await asyncio.gather(*[connection.request("GET", "/") for connection in connections[begin : begin + 500]])
        answers += sum(answer.status == 200 for answer in found)
    used = sidecar.memory() - before
    check.that(answers == IDLE, f"each is served in the end: {answers}")
    check.that(used / IDLE < 32_000, f"idle again after a request each: {used / 1e6:.1f} MB, {used / IDLE:.0f} bytes each")
    for connection in connections:
        connection.writer.transport.abort()

    async def served():
        while True:
            try:
                if (await get(sidecar.proxy, "/")).status == 200:
                    return
            except Broken:
                pass

    await asyncio.wait_for(served(), 5)
    check.that(True, "new callers are served once they have left")
    check.that(await sidecar.stop() == 0, "exit code 0 after SIGTERM")


async def slow(check: Check, settings: str) -> None:
    """F22: 1,000 callers that never end their head and 200 that send a byte of a body now and then."""
    sidecar = await start(check, settings, "slow", {"ATTACHE__PROXY__HEADER_TIMEOUT": f"{HEADER_TIMEOUT}s"})
    lived = []

    async def slow_head() -> None:
        connection = await Connection.open(sidecar.proxy)
        began = time.monotonic()
        connection.writer.write(b"GET / HTTP/1.1\r\nhost: 127.0.0.1\r\nx-a: ")
        try:
            while await asyncio.wait_for(connection.reader.read(4096), HEADER_TIMEOUT + 10):
                pass
        except OSError:
            pass
        lived.append(time.monotonic() - began)
        connection.close()

    async def slow_body() -> None:
        connection = await Connection.open(sidecar.proxy)
        connection.writer.write(b"POST / HTTP/1.1\r\nhost: 127.0.0.1\r\ncontent-length: 100000\r\n\r\n")
        for _ in range(HEADER_TIMEOUT * 2):
            connection.writer.write(b"x")
            await asyncio.sleep(0.5)
        connection.close()

    load = Load(sidecar.proxy, lambda number: ("GET", f"/{number}", {}, None, lambda answer: None))
    good = asyncio.create_task(load.run(200, 200 * (HEADER_TIMEOUT + 2)))
    before = sidecar.memory()
    bad = asyncio.gather(*[slow_head() for _ in range(1000)], *[slow_body() for _ in range(200)])
    outcomes = await good
    growth = sidecar.memory() - before
    await bad
    failed = [outcome for outcome in outcomes if outcome.status != 200]
    check.that(not failed, f"{len(failed)} of {len(outcomes)} good requests failed beside them {failed[:2] or ''}")
    check.that(len(lived) == 1000, f"{len(lived)} slow heads closed")
    check.that(
        HEADER_TIMEOUT - 0.5 <= min(lived) and max(lived) <= HEADER_TIMEOUT + 1,
        f"after {min(lived):.1f} to {max(lived):.1f} s, header_timeout is {HEADER_TIMEOUT} s",
    )
    check.note(f"memory grew by {growth / 1e6:.1f} MB")
    check.that(await sidecar.stop() == 0, "exit code 0 after SIGTERM")


async def few_descriptors(check: Check, settings: str, workers: int, places: int) -> None:
    """F18: 64 file descriptors, 200 callers. Each worker needs some for itself, which leaves these places."""
    sidecar = Sidecar(check, f"few-{workers}")
    environment = {"CLIENT_SECRET": SECRET, "ATTACHE__PROXY__WORKERS": str(workers)}
    await sidecar.begin(settings, environment, ["prlimit", "--nofile=64:64"])
    await sidecar.listening()
    while (await get(sidecar.admin, "/readyz")).status != 200:
        await asyncio.sleep(0.02)
    quiet = sidecar.descriptors()
    check.that(quiet < 24 + 6 * workers, f"{workers} workers: {quiet} descriptors while nothing happens, of {24 + 6 * workers} reserved")
    outcomes = {"served": 0, "refused": 0, "closed": 0, "waiting": 0, "other": 0}
    held = []

    async def caller(number: int) -> None:
        try:
            connection = await Connection.open(sidecar.proxy)
            held.append(connection)
            answer = await asyncio.wait_for(connection.request("GET", f"/{number}"), 3)
            if answer.status not in (200, 503):
                check.note(f"{answer.status}: {answer.body[:300]}")
            outcomes["served" if answer.status == 200 else "refused" if answer.status == 503 else "other"] += 1
        except Broken:
            outcomes["closed"] += 1
        except TimeoutError:
            outcomes["waiting"] += 1

    calling = asyncio.gather(*[caller(number) for number in range(200)])
    alive = (await asyncio.wait_for(get(sidecar.admin, "/livez"), 5)).status
    await calling
    check.note(f"200 callers at once: {json.dumps(outcomes)}")
    check.that(outcomes["served"] >= places - 1 and outcomes["other"] == 0, f"{outcomes['served']} are served, there are {places} places")
    told = outcomes["served"] + outcomes["refused"]
    check.that(told == 200, f"{told} of 200 are served or told that there are too many: none is closed without an answer")
    check.that(sidecar.process.returncode is None, "it is alive")
    check.that(alive == 200, f"/livez answers meanwhile: {alive}")
    for connection in held:
        connection.writer.transport.abort()
    began = time.monotonic()
    # No more at once than there are places.
    together = min(10, places - 1)
    failures = 1
    while failures and time.monotonic() - began < 5:
        found = await asyncio.gather(*[get(sidecar.proxy, "/") for _ in range(together)], return_exceptions=True)
        failures = sum(isinstance(answer, BaseException) or answer.status != 200 for answer in found)
    took = time.monotonic() - began
    check.that(not failures and took < 2, f"normal again {took:.2f} s after they have left")
    check.that(await sidecar.stop() == 0, "exit code 0 after SIGTERM")
