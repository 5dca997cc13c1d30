"""Start and end (F19): what is refused before anything is bound, and how a loaded sidecar goes away without losing a request."""

import asyncio
import hashlib
import signal
import time

from support.fakes import SECRET, FakeProvider, FakeUpstream, config
from support.http import Broken, Connection, Load, get
from support.process import Process, Sidecar, reserve_port
from support.report import Check

RATE, COUNT = 500, 10_000
BODY = b"x" * 16_384
DELAY = 8  # drain_delay, longer than what is left of the load at SIGTERM


async def main(check: Check) -> None:
    check.secret("client secret", SECRET)
    provider = await FakeProvider(check).start()
    upstream = await FakeUpstream(check, provider).start()
    settings = config(provider.server.url, upstream.server.url)
    await refused(check, settings)
    await drained(check, settings, upstream)
    await farewell(check, settings)
    await hurried(check, settings)


async def attempt(check: Check, settings: str, env: dict) -> tuple[int, str]:
    """Runs what should not come up; gives its exit code and output."""
    sidecar = Sidecar(check, "refused")
    await sidecar.begin(settings, env)
    return await sidecar.ended(10), sidecar.text()


async def refused(check: Check, settings: str) -> None:
    given = {"CLIENT_SECRET": SECRET}

    # Something else has the port: exit 1, and the address is named.
    held, port = reserve_port()
    held.listen()
    for key in ("PROXY", "ADMIN"):
        code, text = await attempt(check, settings, {**given, f"ATTACHE__{key}__LISTEN": f"127.0.0.1:{port}"})
        check.that(code == 1 and str(port) in text, f"{key.lower()} port in use: exit {code}, the message names the port")
        check.that("listening" not in text, "and it does not say that it listens")
    held.close()

    # Wrong configurations: exit 78, and nothing was bound, seen from a port that stays free all the time.
    held, port = reserve_port()
    where = {"ATTACHE__PROXY__LISTEN": f"127.0.0.1:{port}"}
    wrong = {
        "an unknown key": (settings.replace("upstream =", "upstraem ="), given, "upstream"),
        "a wrong type": (settings + "\nstrip_prefix = 7\n", given, "strip_prefix"),
        "an undefined credential": (settings.replace('credential = "main"', 'credential = "mian"'), given, "routes.main.credential"),
        "plaintext to another machine": (
            settings.replace("127.0.0.1:%s" % settings.split("127.0.0.1:")[2].split('"')[0], "upstream.example"), given, "upstream"
        ),
        "a missing secret": (settings, {}, "CLIENT_SECRET"),
        "a missing secret file": (
            settings.replace('{ env = "CLIENT_SECRET" }', '{ file = "/etc/nowhere/secret" }'), given, "/etc/nowhere/secret"
        ),
        "not TOML": ("[routes\n", given, "refused.toml"),
    }
    for what, (text, env, named) in wrong.items():
        with watch(port) as connected:
            code, said = await attempt(check, text, {**env, **where})
        check.that(code == 78 and named in said and not connected(), f"{what}: exit {code}, the message names {named}, nothing bound")
    code, said = await attempt(check, settings, {**given, **where, "ATTACHE__PROXY__WROKERS": "2"})
    check.that(code == 78 and "workers" in said.lower(), f"an unknown variable: exit {code}, the message suggests `workers`")
    process = await Process(check, "usage").start(check.attache, "run", "--no-such-flag")
    check.that(await process.ended() == 2, "wrong usage: exit 2")
    held.close()


class watch:
    """Tries to connect to a port all the time, in the background."""

    def __init__(self, port: int):
        self.port, self.hits = port, 0

    def __enter__(self):
        self.task = asyncio.create_task(self._try())
        return lambda: self.hits

    def __exit__(self, *_):
        self.task.cancel()

    async def _try(self):
        while True:
            try:
                _, writer = await asyncio.open_connection("127.0.0.1", self.port)
                self.hits += 1
                writer.close()
            except OSError:
                pass
            await asyncio.sleep(0.001)


async def until_ready(sidecar: Sidecar) -> None:
    async def ready():
        while (await get(sidecar.admin, "/readyz")).status != 200:
            await asyncio.sleep(0.02)

    await asyncio.wait_for(ready(), 10)


async def drained(check: Check, settings: str, upstream: FakeUpstream) -> None:
    """SIGTERM at 500 requests a second."""
    more = f'[shutdown]\ndrain_delay = "{DELAY}s"\ndrain_timeout = "20s"\n'
    sidecar = await Sidecar.run(check, settings + more, {"CLIENT_SECRET": SECRET})
    await until_ready(sidecar)
    empty, full = (hashlib.sha256(body).hexdigest().encode() for body in (b"", BODY))

    def make(number: int):
        body = BODY if number % 5 == 0 else None
        verify = lambda answer: None if answer.body == (full if body else empty) else "wrong body"  # noqa: E731
        return ("POST" if body else "GET"), f"/{number}", {}, body, verify

    load = Load(sidecar.proxy, make)
    running = asyncio.create_task(load.run(RATE, COUNT))
    await asyncio.sleep(COUNT / RATE - DELAY + 4)
    before = upstream.server.requests
    at = time.monotonic()
    sidecar.signal(signal.SIGTERM)
    while (await get(sidecar.admin, "/readyz")).status == 200 and time.monotonic() - at < 5:
        pass
    took = time.monotonic() - at  # the poll shares its thread with the load
    check.that(took < 1, f"not ready {took * 1000:.0f} ms after SIGTERM")
    check.that((await get(sidecar.admin, "/livez")).status == 200, "but alive")
    fresh = await get(sidecar.proxy, "/fresh")
    check.that(fresh.status == 200, "and new connections are served")
    outcomes = await running
    failed = [outcome for outcome in outcomes if outcome.status != 200 or outcome.reason]
    check.that(not failed, f"{len(failed)} failed of {len(outcomes)} at {RATE} a second {failed[:3] or ''}")
    check.note(f"{upstream.server.requests - before} of them after SIGTERM; {upstream.unauthorized} upstream 401s")
    # One that is in flight when accepting ends is finished.
    connection = await Connection.open(sidecar.proxy)
    slow = asyncio.create_task(connection.request("GET", "/slow/5000"))
    answer = await asyncio.wait_for(slow, 20)
    check.that(answer.status == 200, f"a request in flight beyond drain_delay is finished: {answer.status}")
    code = await sidecar.ended(30)
    check.that(code == 0, f"exit {code}, {time.monotonic() - at:.1f} s after SIGTERM")
    try:
        await Connection.open(sidecar.proxy)
        check.that(False, "the port is closed")
    except Broken:
        check.that(True, "the port is closed")


async def farewell(check: Check, settings: str) -> None:
    """SIGTERM with the defaults, where nobody is told to stop before: connections that are in use are told so, and lose nothing."""
    sidecar = await Sidecar.run(check, settings, {"CLIENT_SECRET": SECRET})
    await until_ready(sidecar)
    kept = [await Connection.open(sidecar.proxy) for _ in range(50)]
    leaving, answers, broken, told = asyncio.Event(), 0, [], 0

    async def use(connection: Connection) -> None:
        nonlocal answers, told
        while True:
            try:
                answer = await connection.request("GET", "/farewell")
            except Broken as error:
                broken.append(error)
                return
            answers += 1
            if answers == 500:
                leaving.set()
            if (answer.header("connection") or "").lower() == "close":
                told += 1
                return
            await asyncio.sleep(0.05)  # the pace of a busy service

    using = [asyncio.create_task(use(connection)) for connection in kept]
    await asyncio.wait_for(leaving.wait(), 20)
    at = time.monotonic()
    sidecar.signal(signal.SIGTERM)
    await asyncio.wait_for(asyncio.gather(*using), 20)
    check.that(not broken, f"SIGTERM without a delay: {len(broken)} of {answers} requests broke {broken[:3] or ''}")
    check.that(told == len(kept), f"{told} of {len(kept)} connections in use are told to go elsewhere")
    code = await sidecar.ended(10)
    took = time.monotonic() - at
    check.that(code == 0 and took < 5, f"exit {code}, {took:.1f} s after SIGTERM")


async def hurried(check: Check, settings: str) -> None:
    """A second SIGTERM does not wait for anything."""
    more = '[shutdown]\ndrain_delay = "20s"\ndrain_timeout = "20s"\n'
    sidecar = await Sidecar.run(check, settings + more, {"CLIENT_SECRET": SECRET})
    await until_ready(sidecar)
    connection = await Connection.open(sidecar.proxy)
    slow = asyncio.create_task(connection.request("GET", "/slow/2000"))
    sidecar.signal(signal.SIGTERM)
    while (await get(sidecar.admin, "/readyz")).status == 200:
        pass
    at = time.monotonic()
    sidecar.signal(signal.SIGTERM)
    code = await sidecar.ended(10)
    took = time.monotonic() - at
    check.that(took < 1, f"a second SIGTERM ends it in {took * 1000:.0f} ms, exit {code}")
    try:
        await slow
    except Broken:
        pass
