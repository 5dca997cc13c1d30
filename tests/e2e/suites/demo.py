"""`attache demo`: what a newcomer sees first."""


from support.http import get
from support.process import Process
from support.report import Check


async def main(check: Check) -> None:
    once = await Process(check, "demo --once").start(check.attache, "demo", "--once")
    code = await once.ended(30)
    text = once.text()
    check.that(code == 0, f"`attache demo --once`: exit {code}")
    check.that("authorization" in text.lower(), "it shows the request before and after")
    for line in once.lines[:40]:
        check.note(f"| {line[:140]}")

    demo = await Process(check, "demo").start(check.attache, "demo")
    port = int((await demo.line(r"curl\b.*127\.0\.0\.1:(\d+)")).group(1))
    check.that(port == 7080, f"`attache demo` names a curl line for port {port}")
    answer = await get(("127.0.0.1", port), "/orders")
    check.that(answer.status == 200 and b"authorization" in answer.body.lower(), f"the curl line works: {answer.status}")
    begun = len(demo.lines)
    refreshed = await demo.line(r"(?i)refresh|new token|fresh token|generation", timeout=90, start=begun)
    check.that(True, f"a refresh shows while it runs: {refreshed.string[:120]}")
    check.that((await get(("127.0.0.1", port), "/orders")).status == 200, "and requests still pass")
    check.that(await demo.stop() == 0, "exit code 0 after SIGTERM")
