"""Refresh tokens that rotate, at a certified provider that ends a family when a token of it comes twice (RFC 9700 §4.14).

Ten credentials with access tokens of two seconds, until there have been 200 refreshes, under load all the while. A token that came
twice would be an `invalid_grant`, and the end of its family.
"""

import asyncio
import json
import os
import time

from support.http import get
from support.issuer import SECRET, Issuer
from support.process import Process, Sidecar
from support.report import Check
from suites.client_auth import Upstream

CHAINS, REFRESHES, PATIENCE = 10, 200, 60


async def main(check: Check) -> None:
    check.secret("client secret", SECRET)
    issuer = await Issuer(check, rotating=CHAINS).start()
    upstream = Upstream(check)
    await upstream.server.start(check)
    text = ""
    for number in range(CHAINS):
        name = f"rotating-{number}"
        token = check.folder / f"{name}.token"
        token.write_text(await issuer.refresh_token(name))
        token.chmod(0o600)
        more = f'client_secret = {{ env = "CLIENT_SECRET" }}\nrefresh_token = {{ file = "{token}" }}\nscope = "openid offline_access"\n'
        text += issuer.credential(name, name, f'{more}store = "{check.folder}/{name}.store"', "refresh_token")
        text += f'[routes.{name}]\npath = "/{number}"\nupstream = "{upstream.server.url}"\ncredential = "{name}"\n'
    sidecar = await Sidecar.run(check, text, {"CLIENT_SECRET": SECRET})
    began, failed, sent, seen = time.monotonic(), [], 0, []
    while len(seen) < REFRESHES and time.monotonic() - began < PATIENCE:
        answers = await asyncio.gather(*[get(sidecar.proxy, f"/{number}") for number in range(CHAINS)])
        sent += CHAINS
        failed += [answer.status for answer in answers if answer.status != 200]
        await asyncio.sleep(0.1)
        seen = [one for one in await issuer.seen() if one["grant"] == "refresh_token"]
    refused = [one["error"] for one in seen if one.get("error")]
    took = time.monotonic() - began
    check.that(
        len(seen) >= REFRESHES and not refused,
        f"{len(seen)} refreshes of {CHAINS} families in {took:.0f} s, {len(refused)} refused {refused[:3]}",
    )
    check.that(not failed, f"{len(failed)} of {sent} requests failed meanwhile {failed[:5]}")
    for path in ("/metrics", "/status"):
        check.seen(path, (await get(sidecar.admin, path)).body.decode())
    check.that(await sidecar.stop() == 0, "exit code 0 after SIGTERM")

    # Whom they speak for: the one who signed in, by the provider's own word. The family goes on from its store.
    path = check.folder / "attache.toml"
    process = await Process(check, "whoami").start(
        check.attache, "whoami", "rotating-0", "--config", path, env={"PATH": os.environ["PATH"], "CLIENT_SECRET": SECRET}
    )
    code = await process.ended()
    text = process.text()
    told = json.loads(text[text.index("{") :]) if "{" in text else {}
    right = told.get("identity", {}).get("sub") == "somebody" and "userinfo" in told["according_to"]
    check.that(code == 0 and right, f"whoami: {told.get('according_to')}, somebody {'' if right else text}")
    refused = [one["error"] for one in await issuer.seen() if one.get("error")]
    check.that(not refused, f"{len(refused)} requests refused after a restart from the store {refused[:3]}")
