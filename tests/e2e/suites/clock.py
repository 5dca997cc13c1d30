"""The clock is set by two hours, forwards and back, under load (F16), with libfaketime.

To CLOCK_MONOTONIC, which is not faked, a step forwards looks as a suspend does: it stood still while the wall clock went on.
libfaketime works by preloading, which a static program ignores: this suite runs a dynamic build, if need be the debug one.
"""

import asyncio
import json
import os
import subprocess
import time
from datetime import datetime
from pathlib import Path

from support import tools
from support.fakes import SECRET, FakeProvider, FakeUpstream, config
from support.http import Load, get
from support.process import Sidecar
from support.report import Check, Skip

LIFETIME, RATE, SECONDS = 60, 100, 8  # two processes at once
TWO_HOURS = 7200


def dynamic(attache: Path) -> Path:
    """A build of attaché that loads libraries."""
    target = Path(os.environ.get("CARGO_TARGET_DIR", tools.ROOT / "target"))
    for program in (attache, target / "debug" / "attache"):
        if program.exists() and b"ld-linux" in program.read_bytes()[:65536]:
            return program
    subprocess.run(["cargo", "build", "--locked", "--bin", "attache"], cwd=tools.ROOT, check=True)
    return target / "debug" / "attache"


async def main(check: Check) -> None:
    check.secret("client secret", SECRET)
    library = next(tools.debian("faketime").glob("usr/lib/**/libfaketimeMT.so.1"), None)
    if library is None:
        raise Skip("there is no libfaketime")
    check.attache = dynamic(check.attache)
    await asyncio.gather(step(check, library, "forwards", TWO_HOURS), step(check, library, "back", -TWO_HOURS))


async def step(check: Check, library: Path, name: str, offset: int) -> None:
    provider = await FakeProvider(check, lifetime=LIFETIME).start()
    upstream = await FakeUpstream(check, provider).start()
    clock = check.folder / f"clock-{name}"

    def set_clock(seconds: int) -> None:
        beside = clock.with_suffix(".new")
        beside.write_text(f"{seconds:+d}\n")
        beside.rename(clock)

    set_clock(0)
    environment = {
        "CLIENT_SECRET": SECRET,
        "LD_PRELOAD": str(library),
        "FAKETIME_TIMESTAMP_FILE": str(clock),
        "FAKETIME_NO_CACHE": "1",
        "DONT_FAKE_MONOTONIC": "1",
    }
    settings = config(provider.server.url, upstream.server.url)
    sidecar = await Sidecar.run(check, settings, environment, name=f"clock-{name}")
    while (await get(sidecar.admin, "/readyz")).status != 200:
        await asyncio.sleep(0.02)

    make = lambda number: ("GET", f"/{number}", {}, None, lambda answer: None)  # noqa: E731
    load = Load(sidecar.proxy, make)
    running = asyncio.create_task(load.run(RATE, RATE * SECONDS))
    await asyncio.sleep(SECONDS / 2)
    asked, seen = len(provider.tokens), upstream.server.requests
    set_clock(offset)
    stepped = time.monotonic()
    outcomes = await running
    failed = [outcome for outcome in outcomes if outcome.status != 200]
    extra = len(provider.tokens) - asked
    check.that(not failed, f"{name}: {len(failed)} of {len(outcomes)} requests failed {failed[:2] or ''}")
    check.that(extra <= 1, f"{name}: {extra} extra token requests (at most one)")
    check.that(upstream.unauthorized == 0, f"{name}: the upstream saw {upstream.server.requests - seen} requests after the step, none without a good token")
    if offset > 0:
        # Only the wall clock says that the token has ended: the first request after it waits for a new one.
        check.that(extra == 1, f"{name}: the token was replaced at the first request after the step")
    # The token's life by the clock that was not set: it is refreshed in time, and the step costs nothing later.
    while len(provider.tokens) < asked + extra + 1 and time.monotonic() - stepped < LIFETIME:
        await asyncio.sleep(0.1)
    answer = await get(sidecar.proxy, "/late")
    check.that(answer.status == 200 and len(provider.tokens) == asked + extra + 1, f"{name}: refreshed {time.monotonic() - stepped:.0f} s after the step, as planned")
    last = next(line for line in reversed(sidecar.lines) if "token refreshed" in line)
    moved = datetime.fromisoformat(json.loads(last)["timestamp"].replace("Z", "+00:00")).timestamp() - time.time()
    check.that(abs(moved - offset) < 60, f"{name}: the process saw its clock {moved:.0f} s off")
    check.that(await sidecar.stop() == 0, f"{name}: exit code 0 after SIGTERM")
