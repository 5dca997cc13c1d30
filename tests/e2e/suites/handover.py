"""A new process takes the port over while the old one drains (`reuse_port`): no supervisor, no gap, no failed request.

1. The old process serves 300 requests a second, half of them on connections of their own.
2. A second process with the same configuration binds the same ports. New connections are its own from then on.
3. When it is ready the old one gets SIGTERM, finishes what it has, and ends. Then the same again.
"""

import asyncio
import signal
import socket

from support.fakes import SECRET, FakeProvider, FakeUpstream, config
from support.http import Load, get
from support.process import Process, Sidecar
from support.report import Check

RATE, SECONDS = 300, 7
HANDOVERS = 3


def reserve() -> tuple[socket.socket, int]:
    """A port that only whoever shares it can have."""
    held = socket.socket()
    held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    held.bind(("127.0.0.1", 0))
    return held, held.getsockname()[1]


async def requests(sidecar_admin) -> int:
    text = (await get(sidecar_admin, "/metrics")).body.decode()
    lines = [line for line in text.splitlines() if line.startswith('attache_requests_total{code="2xx",route="main"}')]
    return int(lines[0].rsplit(" ", 1)[1]) if lines else 0


async def main(check: Check) -> None:
    check.secret("client secret", SECRET)
    provider = await FakeProvider(check).start()
    upstream = await FakeUpstream(check, provider).start()
    (proxy_held, proxy), (admin_held, admin) = reserve(), reserve()
    settings = config(provider.server.url, upstream.server.url)
    env = {
        "CLIENT_SECRET": SECRET,
        "ATTACHE__PROXY__LISTEN": f"127.0.0.1:{proxy}",
        "ATTACHE__ADMIN__LISTEN": f"127.0.0.1:{admin}",
    }
    shared = {**env, "ATTACHE__PROXY__REUSE_PORT": "true"}

    old = await Sidecar.run(check, settings, shared, "process-0")
    while (await get(old.admin, "/readyz")).status != 200:
        await asyncio.sleep(0.02)

    greedy = Sidecar(check, "greedy")
    await greedy.begin(settings, env)
    code = await greedy.ended()
    check.that(code == 1 and str(proxy) in greedy.text(), f"a process that does not share the port: exit {code}")

    def make(number: int):
        return "GET", f"/{number}", {"connection": "close"} if number % 2 else {}, None, lambda answer: None

    load = Load(old.proxy, make)
    running = asyncio.create_task(load.run(RATE, RATE * SECONDS))
    for number in range(1, HANDOVERS + 1):
        await asyncio.sleep(1)
        new = await Sidecar.run(check, settings, shared, f"process-{number}")
        # The admin port leads to the new process too.
        url, pid = f"http://127.0.0.1:{admin}/readyz", str(new.process.pid)
        ready = await Process(check, "wait").start(check.attache, "wait", "--url", url, "--pid", pid)
        check.that(await ready.ended() == 0, f"process {number} is ready")
        await asyncio.sleep(0.5)
        served = await requests(new.admin)
        check.that(served >= RATE * 0.5 * 0.5 * 0.5, f"and serves: {served} requests, while the old one still lives")
        old.signal(signal.SIGTERM)
        code = await old.ended(30)
        check.that(code == 0, f"the old one ends, exit {code}")
        old = new
    outcomes = await running
    failed = [outcome for outcome in outcomes if outcome.status != 200]
    slow = max(outcome.ended - outcome.began for outcome in outcomes)
    check.that(
        not failed,
        f"{len(failed)} failed of {len(outcomes)} at {RATE} a second over {HANDOVERS} hand-overs, the slowest took "
        f"{slow * 1000:.0f} ms {failed[:3] or ''}",
    )
    check.that(upstream.unauthorized == 0, f"{upstream.unauthorized} upstream 401s")
    asked = len(provider.tokens)
    check.that(asked == HANDOVERS + 1, f"{asked} token requests: one a process")
    check.that(await old.stop() == 0, "exit code 0 after SIGTERM")
    proxy_held.close()
    admin_held.close()
