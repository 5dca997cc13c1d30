"""A thousand first requests at once while the provider takes two seconds: one token request, a thousand answers."""

import asyncio
import hashlib
import time

from support.fakes import SECRET, FakeProvider, FakeUpstream, config
from support.http import get
from support.process import Sidecar
from support.report import Check

CALLERS = 1000


async def main(check: Check) -> None:
    check.secret("client secret", SECRET)
    provider = await FakeProvider(check, delay=2).start()
    upstream = await FakeUpstream(check, provider).start()
    settings = config(provider.server.url, upstream.server.url)
    sidecar = await Sidecar.run(check, settings, {"CLIENT_SECRET": SECRET})
    began = time.monotonic()

    async def one(number: int):
        body = f"body of {number}".encode()
        answer = await asyncio.wait_for(get(sidecar.proxy, f"/{number}", "POST", {}, body), 30)
        return answer.status == 200 and answer.body == hashlib.sha256(body).hexdigest().encode()

    answers = await asyncio.gather(*[one(number) for number in range(CALLERS)], return_exceptions=True)
    took = time.monotonic() - began
    right = sum(answer is True for answer in answers)
    wrong = [answer for answer in answers if answer is not True][:3]
    check.that(right == CALLERS, f"{right} of {CALLERS} answered rightly in {took:.2f} s {wrong or ''}")
    check.that(len(provider.tokens) == 1, f"{len(provider.tokens)} token request")
    reached = upstream.server.requests
    check.that(reached == CALLERS, f"{reached} requests reached the upstream, {upstream.unauthorized} without a token")
    check.note(f"memory: {sidecar.peak() / 1e6:.1f} MB at most")
    check.that(await sidecar.stop() == 0, "exit code 0 after SIGTERM")
