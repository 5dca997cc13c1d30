"""Refresh tokens that rotate, at a certified provider that ends a family when a token of it comes twice (RFC 9700 §4.14).

One family, 200 refreshes one after the other under load, with access tokens of two seconds and a restart half way. A token that came
twice would be an `invalid_grant`, and the end of the family. That the provider does detect it is shown at the end: the first token
of the family comes once more, from elsewhere.

At most one token request a second makes it five minutes, in which the machine has little to do: tests/run runs it beside others.
"""

import asyncio
import base64
import json
import os
import ssl
import time
import urllib.error
import urllib.parse
import urllib.request

from support.http import get
from support.issuer import SECRET, Issuer
from support.process import Process, Sidecar
from support.report import Check
from suites.client_auth import Upstream

REFRESHES, PATIENCE = 200, 450
# A request is sent a second after the one before, at the earliest. How long it is on its way is the machine's business: one that is
# late comes close before the next, but long after the one before. So three in a row are looked at, and not the first of a process,
# which comes to a provider that has just begun.
APART = 0.9
NAME = "rotating-0"


async def load(check: Check, issuer: Issuer, settings: str, until: int, name: str) -> None:
    """Requests through a sidecar until the provider has seen so many refreshes, all told."""
    sidecar = await Sidecar.run(check, settings, {"CLIENT_SECRET": SECRET}, name)
    before, seen = len(await issuer.seen()), []
    began, failed, sent = time.monotonic(), [], 0
    while len(seen) < until and time.monotonic() - began < PATIENCE:
        for _ in range(10):
            answer = await get(sidecar.proxy, "/")
            sent += 1
            failed += [answer.status] if answer.status != 200 else []
            await asyncio.sleep(0.1)
        seen = await issuer.seen()
    took = time.monotonic() - began
    refused = [one["error"] for one in seen if one.get("error")]
    check.that(
        len(seen) >= until and not refused,
        f"{len(seen) - before} refreshes in {took:.0f} s, {len(refused)} refused {refused[:3]}",
    )
    check.that(not failed, f"{len(failed)} of {sent} requests failed meanwhile {failed[:5]}")
    times = [one["at"] / 1000 for one in seen[before:]]
    least = min((last - first for first, last in zip(times[1:], times[3:], strict=False)), default=0)
    check.that(least > 2 * APART, f"at least {least:.2f} s from one token request to the next but one")
    for path in ("/metrics", "/status"):
        check.seen(path, (await get(sidecar.admin, path)).body.decode())
    check.that(await sidecar.stop() == 0, "exit code 0 after SIGTERM")


async def whoami(check: Check) -> tuple[int, str]:
    process = await Process(check, "whoami").start(
        check.attache, "whoami", NAME, "--config", check.folder / "one.toml",
        env={"PATH": os.environ["PATH"], "CLIENT_SECRET": SECRET},
    )  # fmt: skip
    code = await process.ended()
    check.seen("whoami", process.text())
    return code, process.text()


def present(issuer: Issuer, token: str) -> tuple[int, dict]:
    """A refresh token, as anybody who has stolen it along with the client's secret would. Blocking."""
    form = urllib.parse.urlencode({"grant_type": "refresh_token", "refresh_token": token})
    request = urllib.request.Request(f"{issuer.url}/token", form.encode())
    pair = f"{NAME}:{urllib.parse.quote_plus(SECRET)}"
    request.add_header("authorization", f"Basic {base64.b64encode(pair.encode()).decode()}")
    try:
        context = ssl.create_default_context(cafile=issuer.folder / "ca.pem")
        with urllib.request.urlopen(request, timeout=10, context=context) as answer:
            return answer.status, json.load(answer)
    except urllib.error.HTTPError as error:
        return error.code, json.load(error)


async def main(check: Check) -> None:
    check.secret("client secret", SECRET)
    issuer = await Issuer(check, rotating=1).start()
    upstream = Upstream(check)
    await upstream.server.start(check)
    first = await issuer.refresh_token(NAME)
    token = check.folder / "first.token"
    token.write_text(first)
    token.chmod(0o600)
    more = f'client_secret = {{ env = "CLIENT_SECRET" }}\nrefresh_token = {{ file = "{token}" }}\nscope = "openid offline_access"\n'
    text = issuer.credential(NAME, NAME, f'{more}store = "{check.folder}/family.store"', "refresh_token")
    text += f'[routes.main]\nupstream = "{upstream.server.url}"\ncredential = "{NAME}"\n'
    await load(check, issuer, text, REFRESHES // 2, "one")
    await load(check, issuer, text, REFRESHES, "two")

    seen = await issuer.seen()
    families = {one["family"] for one in seen}
    shown = [one["rotation"] for one in seen]
    check.that(
        len(families) == 1 and shown == list(range(len(shown))),
        f"one family: its tokens 0 to {len(shown) - 1} were each shown once, in their order",
    )

    # Whom they speak for: the one who signed in, by the provider's own word. The family goes on from its store.
    code, text = await whoami(check)
    told = json.loads(text[text.index("{") :]) if "{" in text else {}
    right = told.get("identity", {}).get("sub") == "somebody" and "userinfo" in told["according_to"]
    check.that(code == 0 and right, f"whoami: {told.get('according_to')}, somebody {'' if right else text}")
    refused = [one["error"] for one in await issuer.seen() if one.get("error")]
    check.that(not refused, f"{len(refused)} invalid_grant in {len(await issuer.seen())} refreshes {refused[:3]}")

    status, answer = await asyncio.to_thread(present, issuer, first)
    check.that(
        (status, answer.get("error")) == (400, "invalid_grant"),
        f"the first token, shown once more: {status} {answer.get('error')}",
    )
    code, text = await whoami(check)
    check.that(code == 1 and "does not accept the refresh token any more" in text, "which ends the family, and attaché says so")
