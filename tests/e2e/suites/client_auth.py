"""A certified provider behind TLS, and every way of client authentication.

1. Six ways, each with JWT tokens of two seconds for one of two audiences: who is known how, no assertion twice, no token at the
   upstream of the other audience, a certificate that is replaced.
2. Each algorithm that an assertion can be signed with.
3. Opaque tokens: introspection, and a revoked token that no upstream sees again.
4. What a person asks: `check --online`, `whoami`, `token` on a terminal.
"""

import asyncio
import base64
import hashlib
import json
import os
import pty
import ssl
import time

from support.http import Request, Server, get
from support.issuer import ALGS, SECRET, SHARED, Issuer, certificate
from support.process import Process, Sidecar
from support.report import Check

SECONDS = 8  # of load with tokens of 2 s


class Upstream:
    """Remembers which tokens came, in their order."""

    def __init__(self, check: Check):
        self.check, self.tokens = check, []
        self.server = Server(self._answer)

    async def _answer(self, request: Request):
        token = (request.header("authorization") or "").removeprefix("Bearer ")
        if token not in self.tokens:
            self.tokens.append(self.check.secret("access token", token) if token else token)
        return 200, {}, token.encode()


def claims(token: str) -> dict:
    part = token.split(".")[1]
    return json.loads(base64.urlsafe_b64decode(part + "=" * (-len(part) % 4)))


def thumbprint(path) -> str:
    der = ssl.PEM_cert_to_DER_cert(path.read_text())
    return base64.urlsafe_b64encode(hashlib.sha256(der).digest()).decode().rstrip("=")


def methods(issuer: Issuer) -> dict[str, str]:
    """Of each way, what its credential needs."""
    folder = issuer.folder
    secret = 'client_secret = { env = "CLIENT_SECRET" }'
    pair = 'client_certificate = "{0}/{1}.pem"\nclient_private_key = {{ file = "{0}/{1}.key" }}'
    return {
        "client_secret_basic": secret,
        "client_secret_post": secret,
        "client_secret_jwt": secret,
        "private_key_jwt": f'private_key = {{ file = "{folder}/ES256.jwk" }}',
        "tls_client_auth": pair.format(folder, "client"),
        "self_signed_tls_client_auth": pair.format(folder, "self"),
    }


async def run(check: Check, *arguments, terminal: bool = False) -> tuple[int, str]:
    """A command of attaché; with a terminal, what stands on it."""
    env = {"PATH": os.environ["PATH"], "CLIENT_SECRET": SECRET}
    process = Process(check, arguments[0])
    if not terminal:
        await process.start(check.attache, *arguments, env=env)
        code = await process.ended()
        return code, process.text()
    ours, theirs = pty.openpty()
    child = await asyncio.create_subprocess_exec(
        check.attache, *[str(part) for part in arguments], stdin=theirs, stdout=theirs, stderr=theirs, env=env
    )
    os.close(theirs)
    code = await asyncio.wait_for(child.wait(), 30)
    text = os.read(ours, 1 << 16).decode()
    os.close(ours)
    return code, text


async def every_method(check: Check, issuer: Issuer) -> None:
    upstreams = {name: Upstream(check) for name in "ab"}
    text = ""
    for name, upstream in upstreams.items():
        await upstream.server.start(check)
    for number, (method, lines) in enumerate(methods(issuer).items()):
        audience = "ab"[number % 2]
        more = f'client_auth = "{method}"\nresource = ["https://{audience}.example"]\n{lines}\nverify = true'
        text += issuer.credential(method, method.replace("_", "-"), more)
        text += f'[routes.{method}]\npath = "/{method}"\nupstream = "{upstreams[audience].server.url}"\ncredential = "{method}"\n'
    sidecar = await Sidecar.run(check, text, {"CLIENT_SECRET": SECRET}, "methods")
    began, failed, sent, replaced = time.monotonic(), [], 0, False
    while (ready := await get(sidecar.admin, "/readyz")).status != 200 and time.monotonic() - began < 15:
        await asyncio.sleep(0.05)
    check.that(ready.status == 200, f"six clients have their tokens {time.monotonic() - began:.1f} s after listening")
    began = time.monotonic()
    while time.monotonic() - began < SECONDS:
        answers = await asyncio.gather(*[get(sidecar.proxy, f"/{method}/{sent}") for method in methods(issuer)])
        sent += len(answers)
        failed += [answer.status for answer in answers if answer.status != 200]
        if not replaced and time.monotonic() - began > 2:
            replaced = True
            certificate(issuer.folder, "client", "checkout.example")
        await asyncio.sleep(0.05)
    check.that(not failed, f"{len(failed)} of {sent} requests failed in {SECONDS} s with tokens of 2 s {failed[:5]}")
    seen = await issuer.seen()
    for method in methods(issuer):
        own = [one for one in seen if one["client"] == method.replace("_", "-")]
        check.that(
            len(own) >= 3 and all(one["method"] == method and not one.get("error") for one in own),
            f"{method}: {len(own)} token requests, each known by it {[one['error'] for one in own if one.get('error')][:2]}",
        )
    for audience, upstream in upstreams.items():
        foreign = [token for token in upstream.tokens if claims(token)["aud"] != f"https://{audience}.example"]
        check.that(
            len(upstream.tokens) >= 9 and not foreign,
            f"audience {audience}: {len(upstream.tokens)} tokens, {len(foreign)} of the other audience",
        )
    jtis = [one["jti"] for one in seen if one.get("jti")]
    check.that(len(jtis) >= 6 and len(set(jtis)) == len(jtis), f"{len(jtis)} assertions, each used once")
    # Tokens are bound to the certificate that was shown.
    new = thumbprint(issuer.folder / "client.pem")
    bound = "ab"[list(methods(issuer)).index("tls_client_auth") % 2]
    prints = [claims(token)["cnf"]["x5t#S256"] for token in upstreams[bound].tokens if "cnf" in claims(token)]
    check.that(new in prints, f"a replaced certificate is shown, and tokens are bound to it ({len(set(prints))} certificates)")
    check.seen("metrics", (await get(sidecar.admin, "/metrics")).body.decode())
    check.that(await sidecar.stop() == 0, "exit code 0 after SIGTERM")


async def every_algorithm(check: Check, issuer: Issuer) -> None:
    """Each client of these takes one algorithm only."""
    upstream = Upstream(check)
    await upstream.server.start(check)
    credentials = {}
    for number, alg in enumerate(ALGS):
        # In turn as a JWK, which names its algorithm and its `kid`, and in PEM, which does not.
        key = f'private_key = {{ file = "{issuer.folder}/{alg}.{["jwk", "pem"][number % 2]}" }}'
        named = f'{key}\nsigning_alg = "{alg}"\nkey_id = "e2e-{alg}"' if number % 2 else key
        credentials[alg] = f'client_auth = "private_key_jwt"\n{named}'
    for alg in SHARED:
        credentials[alg] = f'client_auth = "client_secret_jwt"\nclient_secret = {{ env = "CLIENT_SECRET" }}\nsigning_alg = "{alg}"'
    text = ""
    for alg, lines in credentials.items():
        name = alg.lower()
        text += issuer.credential(name, f"alg-{alg}", f'resource = ["https://long.example"]\nverify = true\n{lines}')
        text += f'[routes.{name}]\npath = "/{name}"\nupstream = "{upstream.server.url}"\ncredential = "{name}"\n'
    sidecar = await Sidecar.run(check, text, {"CLIENT_SECRET": SECRET}, "algorithms")
    answers = await asyncio.gather(*[get(sidecar.proxy, f"/{alg.lower()}") for alg in credentials])
    seen = await issuer.seen()
    for alg, answer in zip(credentials, answers, strict=True):
        own = [(one["alg"], one.get("error")) for one in seen if one["client"] == f"alg-{alg}"]
        check.that(answer.status == 200 and own == [(alg, None)], f"an assertion signed with {alg} is accepted {own if own != [(alg, None)] else ''}")
    check.that(await sidecar.stop() == 0, "exit code 0 after SIGTERM")


async def revocation(check: Check, issuer: Issuer) -> None:
    upstream = Upstream(check)
    await upstream.server.start(check)
    text = ""
    for method in ("client_secret_basic", "tls_client_auth"):
        more = f'client_auth = "{method}"\nresource = ["https://opaque.example"]\nintrospect = "1s"\n{methods(issuer)[method]}'
        text += issuer.credential(method, method.replace("_", "-"), more)
        text += f'[routes.{method}]\npath = "/{method}"\nupstream = "{upstream.server.url}"\ncredential = "{method}"\n'
    sidecar = await Sidecar.run(check, text, {"CLIENT_SECRET": SECRET}, "revocation")
    for method in ("client_secret_basic", "tls_client_auth"):
        first = (await get(sidecar.proxy, f"/{method}")).body.decode()
        await asyncio.sleep(2.5)
        check.that((await get(sidecar.proxy, f"/{method}")).body.decode() == first, f"{method}: an active token stays")
        await issuer.revoke(first)
        began, answer = time.monotonic(), first
        while answer == first and time.monotonic() - began < 10:
            await asyncio.sleep(0.05)
            answer = (await get(sidecar.proxy, f"/{method}")).body.decode()
        took = time.monotonic() - began
        check.that(answer not in ("", first) and took < 3, f"{method}: a revoked token is replaced after {took:.1f} s")
    metrics = (await get(sidecar.admin, "/metrics")).body.decode()
    check.seen("metrics", metrics)
    lines = [line for line in metrics.splitlines() if "introspections_total" in line and "failed" in line]
    check.that(len(lines) == 2 and all(line.endswith(" 0") for line in lines), "no introspection failed")
    check.that(await sidecar.stop() == 0, "exit code 0 after SIGTERM")


async def people(check: Check, issuer: Issuer) -> None:
    upstream = Upstream(check)
    await upstream.server.start(check)
    path = check.folder / "people.toml"

    def write(method: str, lines: str, resource: str) -> None:
        more = f'client_auth = "{method}"\nresource = ["https://{resource}.example"]\nscope = "orders.read"\n{lines}'
        route = f'[routes.main]\nupstream = "{upstream.server.url}"\ncredential = "main"\n'
        path.write_text(issuer.credential("main", "private-key-jwt", more) + route)

    key = methods(issuer)["private_key_jwt"]
    write("private_key_jwt", key + "\nverify = true", "long")
    code, text = await run(check, "check", "--online", "--config", path)
    check.seen("check --online", text)
    steps = ("dns", "tcp", "tls", "discovery", "client authentication", "grant", "granted scope", "verification")
    check.that(code == 0 and all(f"ok      {step}: " in text for step in steps), f"check --online: {len(steps)} steps, all ok")
    write("client_secret_post", methods(issuer)["client_secret_post"], "long")
    code, text = await run(check, "check", "--online", "--config", path)
    check.seen("check --online", text)
    named = "failed  client authentication: invalid_client with client_secret_post" in text
    check.that(code == 1 and named, f"check --online names the method that the provider refuses {'' if named else text}")
    write("private_key_jwt", key, "opaque")
    code, text = await run(check, "whoami", "main", "--config", path)
    told = json.loads(text)
    right = told["according_to"].endswith("introspection endpoint") and told["identity"]["client_id"] == "private-key-jwt"
    check.that(code == 0 and right, f"whoami, opaque: {told['according_to']}, {told['identity'].get('client_id')}")
    write("private_key_jwt", key, "long")
    code, text = await run(check, "whoami", "main", "--config", path)
    told = json.loads(text[text.index("{") :])
    check.that(code == 0 and not told["verified"], f"whoami, JWT: {told['according_to']}")
    code, text = await run(check, "token", "main", "--config", path)
    check.that(code == 0 and text.count(".") == 2 and "\n" not in text, "token: alone when it is not for a terminal")
    code, text = await run(check, "token", "main", "--config", path, terminal=True)
    check.that(code == 0 and "warning: this token is a secret" in text, "token: a warning on a terminal")


async def main(check: Check) -> None:
    check.secret("client secret", SECRET)
    issuer = await Issuer(check).start()
    await every_method(check, issuer)
    await every_algorithm(check, issuer)
    await revocation(check, issuer)
    await people(check, issuer)
