"""Peers in this process, for suites that are about attaché's own behaviour rather than about its peers."""

import asyncio
import hashlib
import json

from .http import Request, Server
from .report import Check


class FakeProvider:
    """A token endpoint that can be slow. Each token is new, and known to the check as a secret."""

    def __init__(self, check: Check, lifetime: int = 3600, delay: float = 0):
        self.check, self.lifetime, self.delay = check, lifetime, delay
        self.tokens: list[str] = []
        self.server = Server(self._answer)
        self.asked = asyncio.Event()

    async def start(self) -> "FakeProvider":
        await self.server.start(self.check)
        return self

    async def _answer(self, _request: Request):
        token = f"fake-access-token-{len(self.tokens):08}-{id(self):x}"
        self.tokens.append(self.check.secret("access token", token))
        self.asked.set()
        await asyncio.sleep(self.delay)
        body = json.dumps({"access_token": token, "token_type": "Bearer", "expires_in": self.lifetime}).encode()
        return 200, {"content-type": "application/json"}, body


class FakeUpstream:
    """Answers with the hash of the body, 401 without a token that `provider` issued; `/slow/MS` takes so long."""

    def __init__(self, check: Check, provider: FakeProvider):
        self.check, self.provider = check, provider
        self.unauthorized = 0
        self.server = Server(self._answer)

    async def start(self) -> "FakeUpstream":
        await self.server.start(self.check)
        return self

    async def _answer(self, request: Request):
        given = [value for key, value in request.headers if key == "authorization"]
        if len(given) != 1 or given[0].removeprefix("Bearer ") not in self.provider.tokens:
            self.unauthorized += 1
            return 401, {}, b""
        if "/slow/" in request.target:
            await asyncio.sleep(int(request.target.rsplit("/", 1)[1]) / 1000)
        return 200, {"content-type": "text/plain"}, hashlib.sha256(request.body).hexdigest().encode()


SECRET = "e2e-client-secret-Zq3v9"


def config(provider: str, upstream: str, more: str = "") -> str:
    """One credential, one route."""
    return f"""
[credentials.main]
type = "client_credentials"
token_endpoint = "{provider}/token"
client_id = "e2e"
client_auth = "client_secret_basic"
client_secret = {{ env = "CLIENT_SECRET" }}

[routes.main]
upstream = "{upstream}"
credential = "main"
{more}
"""
