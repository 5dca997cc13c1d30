"""The main job between a real identity provider and real upstreams, with tokens of five seconds.

1. A client whose id and secret hold every character that form-urlencoding before Basic is about (RFC 6749 §2.3.1).
2. 60 s at 100 requests a second through attaché to nginx, to the verifying upstream behind nginx and to that upstream directly.
3. The same again while the provider is killed for 3 of every 10 s, with tokens of 5 s and, beside them, tokens of 30 s.

A token of 5 s is usable for 4 s and refreshed 1.25 to 1.75 s before its end: an outage of 3 s can outlast it. So what is
checked in 3 is exact: a request may fail only with attaché's own 503, and only if no usable token existed at any moment from its
first byte to its answer, by the provider's own record of what it issued when. The margin of a second is needed: the `exp` of
these JWTs is in whole seconds, rounded down, and the upstream gives no leeway.
"""

import asyncio
import hashlib
import json
import os
import time

from support.http import Load, get
from support.peers import Provider, nginx, verifying_upstream
from support.process import Sidecar
from support.report import Check

ID = 'order service+100%: a&b=c? "d" ~e a b'
SECRET = 'p a b+c%d:e&f=g?h"i~j k%20l+'
RATE = 100
SECONDS = int(os.environ.get("ATTACHE_E2E_SECONDS", "60"))
SHORT, LONG = 5, 30
MARGIN = 1  # of a token of 5 s
SLACK = 0.15  # between the provider's record of an answer and attaché's use of it, on two busy cores


def config(issuer: str, upstream: int, web: int) -> str:
    text = ""
    for name, resource in (("short", "https://short"), ("long", "https://long")):
        text += f"""
[credentials.{name}]
type = "client_credentials"
issuer = "{issuer}"
client_id = {json.dumps(ID)}
client_auth = "client_secret_basic"
client_secret = {{ env = "CLIENT_SECRET" }}
scope = "orders.read"
resource = ["{resource}"]

[routes.{name}-direct]
path = "/{name}/direct"
upstream = "http://127.0.0.1:{upstream}"
credential = "{name}"

[routes.{name}-nginx]
path = "/{name}/nginx"
upstream = "http://127.0.0.1:{web}"
credential = "{name}"
"""
    return text


def own(answer) -> str | None:
    if answer.header("content-type") == "application/problem+json":
        return f"attache: {answer.json().get('reason')}"
    return None


def static(answer) -> str | None:
    return None if answer.body == b"static\n" else f"upstream: {answer.status}"


def requests(name: str):
    """A third of the requests are POSTs, from one byte to 200 kB; their answers must tell the hash of what was sent."""
    post = os.urandom(200_000)

    def make(number: int):
        path = f"/{name}/{'nginx' if number % 2 else 'direct'}/{number}"
        if number % 10 == 5:
            return "GET", f"/{name}/nginx/static", {}, None, lambda answer: own(answer) or static(answer)
        body = post[: 1 + number * 7919 % len(post)] if number % 3 == 0 else None
        sent = hashlib.sha256(body or b"").hexdigest()

        def verify(answer):
            if answer.status == 200:
                told = answer.json()
                right = told["sha256"] == sent and told["url"] == path and told["audience"] == f"https://{name}"
                return None if right else f"not what was sent: {told}"
            return own(answer) or f"upstream: {answer.status}"

        return ("POST" if body else "GET"), path, {}, body, verify

    return make


def failed(outcomes) -> list:
    return [outcome for outcome in outcomes if outcome.status != 200 or outcome.reason]


async def stats(check: Check, upstream) -> dict:
    told = (await get(upstream, "/stats")).json()
    for number, token in enumerate(told["tokens"]):
        check.secret(f"token {number}", token)
    return told


async def main(check: Check) -> None:
    check.secret("client secret", SECRET)
    provider = await Provider(check, ID, SECRET, {"https://short": SHORT, "https://long": LONG}).start()
    upstream = await verifying_upstream(check, provider.issuer)
    (check.folder / "static").write_text("static\n")
    check.folder.chmod(0o755)
    web = await nginx(check, f"""
        location / {{ proxy_pass http://127.0.0.1:{upstream[1]}; proxy_http_version 1.1; proxy_set_header Connection ""; }}
        location = /verify {{
            internal; proxy_pass http://127.0.0.1:{upstream[1]};
            proxy_pass_request_body off; proxy_set_header Content-Length "";
        }}
        location ~ /static$ {{ auth_request /verify; alias {check.folder}/static; }}
    """)
    sidecar = await Sidecar.run(check, config(provider.issuer, upstream[1], web[1]), {"CLIENT_SECRET": SECRET})

    began = time.monotonic()
    while (ready := await get(sidecar.admin, "/readyz")).status != 200 and time.monotonic() - began < 10:
        await asyncio.sleep(0.05)
    check.that(ready.status == 200, f"ready {time.monotonic() - began:.2f} s after listening")

    # The provider stays up.
    outcomes = await Load(sidecar.proxy, requests("short")).run(RATE, RATE * SECONDS)
    told = await stats(check, upstream)
    bad = failed(outcomes)
    check.that(len(outcomes) == RATE * SECONDS, f"{len(outcomes)} requests in {SECONDS} s, {RATE} a second")
    check.that(not bad, f"{len(bad)} failed with tokens of {SHORT} s {[(o.status, o.reason) for o in bad[:5]]}")
    check.that(told["unauthorized"] == 0, f"{told['unauthorized']} upstream 401s {told['reasons'][:3]}")
    asked = len(provider.token_requests())
    check.that(
        SECONDS / 4.5 <= asked <= 2 + SECONDS / 2.5, f"{asked} token requests for both credentials, {len(told['tokens'])} tokens seen"
    )

    # The provider is killed for 3 of every 10 seconds.
    before = told["requests"]
    both = [Load(sidecar.proxy, requests(name)) for name in ("short", "long")]
    loads = asyncio.gather(*[load.run(RATE / 2, RATE * SECONDS // 2) for load in both])
    kills, down = 0, 0.0
    while not loads.done():
        await asyncio.wait([loads], timeout=7)
        if loads.done():
            break
        await provider.kill()
        kills, since = kills + 1, time.monotonic()
        await asyncio.sleep(3)
        await provider.start()
        down += time.monotonic() - since
    short, long = await loads
    told = await stats(check, upstream)
    check.note(f"killed {kills} times, {down:.1f} s in all; {told['requests'] - before} requests reached the upstream")
    bad = failed(long)
    check.that(not bad, f"{len(bad)} of {len(long)} failed with tokens of {LONG} s {[(o.status, o.reason) for o in bad[:5]]}")
    bad = failed(short)
    other = [o for o in bad if not (o.status == 503 and o.reason.startswith("attache: "))]
    check.that(not other, f"{len(other)} of {len(short)} failed otherwise than by attaché's own 503 {other[:3]}")
    usable = usable_intervals(provider.token_requests(), SHORT)
    early = [o for o in bad if any(o.began < end and o.ended > start for start, end in usable)]
    check.that(not early, f"{len(early)} failed while a token of {SHORT} s was valid, {len(bad) - len(early)} of {len(short)} while none was {early[:3]}")
    check.that(told["unauthorized"] == 0, f"{told['unauthorized']} upstream 401s {told['reasons'][:3]}")

    for path in ("/metrics", "/status", "/readyz"):
        check.seen(path, (await get(sidecar.admin, path)).body.decode())
    check.seen("own answer", str(await get(sidecar.proxy, "/nowhere")))
    check.that(await sidecar.stop() == 0, "exit code 0 after SIGTERM")


def usable_intervals(requests: list[dict], lifetime: int) -> list[tuple[float, float]]:
    """When a token of this lifetime was usable for certain, by the provider's record: answered whole, not yet in its margin."""
    return [
        (one["answered"] + SLACK, one["received"] + lifetime - MARGIN - SLACK)
        for one in requests
        if one["status"] == 200 and one["whole"] and one["resource"] == "https://short"
    ]
