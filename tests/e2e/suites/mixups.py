"""Nobody gets another's answer: 100,000 requests with a nonce each, while either side breaks connections off at random."""

import json
import os
import time

from support import tools
from support.fakes import SECRET, FakeProvider, config
from support.process import Process, Sidecar
from support.report import Check

COUNT = int(os.environ.get("ATTACHE_E2E_REQUESTS", "100000"))


async def main(check: Check) -> None:
    check.secret("client secret", SECRET)
    provider = await FakeProvider(check).start()
    upstream = await Process(check, "upstream").start("node", tools.PEERS / "nonces.mjs", "upstream")
    port = (await upstream.line(r"^listening (\d+)")).group(1)
    settings = config(provider.server.url, f"http://127.0.0.1:{port}")
    sidecar = await Sidecar.run(check, settings, {"CLIENT_SECRET": SECRET})
    began = time.monotonic()
    callers = await Process(check, "callers").start(
        "node", tools.PEERS / "nonces.mjs", "callers", sidecar.proxy[1], COUNT
    )
    code = await callers.ended(300)
    check.that(code == 0, f"the callers end with {code}")
    seen = json.loads(callers.lines[-1])
    took = time.monotonic() - began
    check.that(seen["mixed"] == 0, f"{seen['mixed']} mixed answers of {COUNT} in {took:.0f} s {seen['examples'] or ''}")
    check.that(seen["whole"] > COUNT * 0.9, f"{seen['whole']} whole answers, {seen['broken']} broken, {seen['left']} left early")
    check.note(f"attaché's own answers: {seen['own']}")
    wrong = {reason for reason in seen["own"] if not reason.startswith("upstream")}
    check.that(not wrong, f"all of those are about the upstream {sorted(wrong) or ''}")
    check.note(f"memory: {sidecar.peak() / 1e6:.1f} MB at most")
    check.that(await sidecar.stop() == 0, "exit code 0 after SIGTERM")
