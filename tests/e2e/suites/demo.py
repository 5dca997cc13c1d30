"""`attache demo`: what a newcomer sees first."""

import asyncio
import shlex
import tempfile
from pathlib import Path

from support.process import Process
from support.report import Check


def left() -> set[Path]:
    return set(Path(tempfile.gettempdir()).glob("attache-demo-*"))


async def main(check: Check) -> None:
    before = left()
    once = await Process(check, "demo --once").start(check.attache, "demo", "--once")
    code = await once.ended(30)
    check.seen("demo --once", once.text())
    check.that(code == 0, f"`attache demo --once`: exit {code}")
    for shown in ("GET /orders", "authorization: Bearer <", "verified the signature", "200"):
        check.that(shown in once.text(), f"it shows `{shown}`")

    demo = await Process(check, "demo").start(
        check.attache, "demo", "--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0"
    )
    await demo.line("Ctrl-C ends it")
    lines = [line.strip() for line in demo.lines if line.strip().startswith("curl ")]
    for line in lines:
        command = shlex.split(line.split("   ")[0])
        curl = await asyncio.create_subprocess_exec(
            "curl", "-sf", *command[1:], stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT
        )
        answer, _ = await curl.communicate()
        check.seen("answer in the demo", answer.decode())
        check.that(curl.returncode == 0 and answer, f"the line works: {shlex.join(command)}")
    check.that(len(lines) >= 3, f"{len(lines)} curl lines to try")
    refreshed = await demo.line(r"with token 2 +refreshed while requests flow", timeout=30)
    check.that(True, f"a refresh shows: {refreshed.string}")
    wrong = [line for line in demo.lines if line.startswith("service") and "-> 200" not in line]
    check.that(not wrong, f"every request of the service is answered 200 {wrong[:2] or ''}")
    code = await demo.stop()
    check.seen("demo", demo.text())
    check.that(code == 0, f"exit {code} after SIGTERM")
    check.that(left() <= before, "nothing is left behind in the temporary folder")

    usage = await Process(check, "demo --help").start(check.attache, "demo", "--help")
    await usage.ended()
    check.that("127.0.0.1:7080" in usage.text(), "by default it listens on 127.0.0.1:7080")
