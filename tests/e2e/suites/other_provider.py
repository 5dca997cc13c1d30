"""A second, independent provider: Debian's glewlwyd, in C, set up through its own API, issues tokens to the same binary.

Its metadata, its keys, and its way of Basic: it does not decode id and secret, against RFC 6749 §2.3.1, which is what
`client_secret_basic_raw` is for. attaché does not find that out by trying; it says what to set. What is checked at oidc-provider must not be made for oidc-provider.
"""

import asyncio
import gzip
import json
import os
import shutil
import sqlite3
import subprocess
import time
from pathlib import Path

from support import tools
from support.http import get
from support.process import Process, Sidecar, reserve_port
from support.report import Check, Failed, Skip
from suites.client_auth import Upstream, claims

SECRET = "p a b+c%d:e&f=g?h~j k%20l+0123456789"
LIFE = 8  # seconds of an access token


class Glewlwyd:
    """The provider, with a database, a key and one client."""

    def __init__(self, check: Check, root: Path):
        self.check, self.root = check, root
        self.held, self.port = reserve_port()
        self.address, self.issuer = ("127.0.0.1", self.port), f"http://localhost:{self.port}/api/oidc"
        self.cookie = ""

    async def start(self) -> "Glewlwyd":
        folder, library = self.check.folder, self.root / "usr/lib/glewlwyd"
        script = self.root / "usr/share/doc/glewlwyd/database/init.sqlite3.sql.gz"
        if not script.exists():
            raise Skip("Debian's glewlwyd comes without the script that makes its database")
        database = sqlite3.connect(folder / "glewlwyd.db")
        database.executescript(gzip.decompress(script.read_bytes()).decode())
        database.close()
        modules = {"user": "user", "user_middleware": "user", "client": "client", "user_auth_scheme": "scheme", "plugin": "plugin"}
        (folder / "empty").mkdir()
        paths = [
            f'{name}_module_path="{folder / "empty" if name == "user_middleware" else library / place}"'
            for name, place in modules.items()
        ]
        (folder / "glewlwyd.conf").write_text("\n".join([
            f"port={self.port}", 'bind_address="127.0.0.1"', f'external_url="http://localhost:{self.port}"',
            'login_url="login.html"', 'api_prefix="api"', f'static_files_path="{folder}"', 'log_mode="console"',
            'log_level="WARNING"', 'cookie_domain="localhost"', "cookie_secure=0", "session_expiration=3600",
            'session_key="SESSION"', 'admin_scope="g_admin"', 'profile_scope="g_profile"', *paths,
            'hash_algorithm="SHA512"',
            f'database = {{ type = "sqlite3"; path = "{folder}/glewlwyd.db"; }};', "",
        ]))  # fmt: skip
        binary = self.root / "usr/bin/glewlwyd"
        process = Process(self.check, "glewlwyd")
        await process.start(binary, "--config-file", folder / "glewlwyd.conf", env=tools.environment(self.root))
        began = time.monotonic()
        while time.monotonic() - began < 15:
            try:
                if (await get(self.address, "/config")).status == 200:
                    break
            except Exception:
                if process.process.returncode is not None:
                    raise Skip(f"glewlwyd does not start here: {process.text()[-300:]}") from None
            await asyncio.sleep(0.05)
        else:
            raise Failed(f"glewlwyd does not answer: {process.text()[-2000:]}")
        return self

    async def post(self, path: str, what: dict) -> None:
        headers = {"content-type": "application/json", "cookie": self.cookie}
        answer = await get(self.address, f"/api/{path}", "POST", headers, json.dumps(what).encode())
        if answer.status != 200:
            raise Failed(f"glewlwyd: {path} answers {answer.status} {answer.body[:300]}")
        if found := answer.header("set-cookie"):
            self.cookie = found.split(";")[0]

    async def set_up(self) -> None:
        """An OpenID Connect plugin with a key of its own, a scope, a client."""
        key = subprocess.run(["openssl", "genpkey", "-algorithm", "RSA", "-pkeyopt", "rsa_keygen_bits:2048"], check=True, capture_output=True)
        public = subprocess.run(["openssl", "pkey", "-pubout"], input=key.stdout, check=True, capture_output=True)
        await self.post("auth/", {"username": "admin", "password": "password"})
        kinds = {f"auth-type-{kind}-enabled": kind == "client" for kind in ("code", "token", "none", "password", "client", "device", "refresh")}
        parameters = {
            "iss": self.issuer, "jwt-type": "rsa", "jwt-key-size": "256", "key": key.stdout.decode(),
            "cert": public.stdout.decode(), "jwks-show": True, "access-token-duration": LIFE, "refresh-token-duration": 3600,
            "code-duration": 60, "allow-non-oidc": True, **kinds, "introspection-revocation-allowed": True,
            "introspection-revocation-allow-target-client": True, "resource-allowed": False,
        }  # fmt: skip
        await self.post("mod/plugin/", {"module": "oidc", "name": "oidc", "display_name": "OIDC", "parameters": parameters})
        await self.post("scope/", {"name": "orders.read", "display_name": "orders", "password_required": False})
        await self.post("client/", {
            "client_id": "checkout", "name": "checkout", "enabled": True, "confidential": True, "password": SECRET,
            "scope": ["orders.read"], "authorization_type": ["client_credentials"], "redirect_uri": [],
            "token_endpoint_auth_method": ["client_secret_basic", "client_secret_post"],
        })  # fmt: skip


async def main(check: Check) -> None:
    check.secret("client secret", SECRET)
    provider = await Glewlwyd(check, tools.debian("glewlwyd")).start()
    await provider.set_up()
    upstream = Upstream(check)
    await upstream.server.start(check)
    # Its `aud` is the scope.
    def config(method: str) -> str:
        return f"""
[credentials.main]
type = "client_credentials"
issuer = "{provider.issuer}"
client_id = "checkout"
client_auth = "{method}"
client_secret = {{ env = "CLIENT_SECRET" }}
scope = "orders.read"
verify = true
verify_audience = "orders.read"
introspect = "1s"

[routes.main]
upstream = "{upstream.server.url}"
credential = "main"
"""

    env = {"CLIENT_SECRET": SECRET}
    sidecar = await Sidecar.run(check, config("client_secret_basic_raw"), env)
    began, failed, sent = time.monotonic(), [], 0
    while time.monotonic() - began < LIFE + 6:
        answer = await get(sidecar.proxy, f"/{sent}")
        sent += 1
        failed += [answer.status] if answer.status != 200 else []
        await asyncio.sleep(0.02)
    check.that(not failed, f"{len(failed)} of {sent} requests failed in {LIFE + 6} s with tokens of {LIFE} s {failed[:5]}")
    issuers = {claims(token)["iss"] for token in upstream.tokens if token}
    check.that(len(upstream.tokens) >= 2 and issuers == {provider.issuer}, f"{len(upstream.tokens)} tokens, verified, of {issuers}")
    metrics = (await get(sidecar.admin, "/metrics")).body.decode()
    check.seen("metrics", metrics)
    asked = dict(line.rsplit(" ", 1) for line in metrics.splitlines() if line.startswith("attache_token_introspections_total"))
    active = next((float(value) for name, value in asked.items() if 'outcome="active"' in name), 0)
    check.that(active >= 8 and active == sum(map(float, asked.values())), f"asked {active:.0f} times: active each time {asked}")
    check.that(await sidecar.stop() == 0, "exit code 0 after SIGTERM")
    path = check.folder / "attache.toml"
    for method, right in (("client_secret_basic_raw", True), ("client_secret_post", True), ("client_secret_basic", False)):
        path.write_text(config(method))
        process = await Process(check, "online").start(
            check.attache, "check", "--online", "--config", path, env={"PATH": os.environ["PATH"], **env}
        )
        code = await process.ended()
        text = process.text()
        check.seen("check --online", text)
        if right:
            check.that(code == 0 and "ok      verification" in text, f"{method}: every step is ok {'' if code == 0 else text}")
        else:
            named = "failed  client authentication" in text and "client_secret_basic_raw" in text
            check.that(code == 1 and named, f"{method}: refused, and the hint names the other {'' if named else text}")
    shutil.rmtree(check.folder / "empty")
