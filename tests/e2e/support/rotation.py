"""A provider that rotates refresh tokens, and ends a family whose spent token comes again (RFC 9700, section 4.14.2)."""

import json
import time
import urllib.parse

from .http import Request, Server
from .report import Check


class RotatingProvider:
    """`/token`. Each answer has a new refresh token; the one before is spent at that moment, whether the answer arrives or not."""

    def __init__(self, check: Check, lifetime: int):
        self.check, self.lifetime = check, lifetime
        self.server = Server(self._answer)
        self.commits: list[tuple[str, float]] = []  # the refresh token that was given, and when
        self.spent: set[str] = set()
        self.reused: list[str] = []
        self.refused = 0
        self.tokens: set[str] = set()
        self.on_commit = None
        self.begin()

    def begin(self) -> str:
        """A family of its own; gives its first token."""
        self.current = self.check.secret("refresh token", f"rt-initial-{len(self.commits):06}-{id(self):x}")
        return self.current

    async def start(self) -> "RotatingProvider":
        await self.server.start(self.check)
        return self

    async def _answer(self, request: Request):
        form = dict(urllib.parse.parse_qsl(request.body.decode()))
        shown = form["refresh_token"]
        if shown != self.current:
            self.refused += 1
            if shown in self.spent:
                self.reused.append(shown)
                self.current = ""  # the whole family is revoked
            return 400, {"content-type": "application/json"}, b'{"error": "invalid_grant"}'
        number = len(self.commits)
        self.spent.add(shown)
        self.current = self.check.secret("refresh token", f"rt-{number:06}-{id(self):x}")
        token = self.check.secret("access token", f"at-{number:06}-{id(self):x}")
        self.tokens.add(token)
        self.commits.append((self.current, time.time()))
        if self.on_commit:
            self.on_commit()
        answer = {"access_token": token, "token_type": "Bearer", "expires_in": self.lifetime, "refresh_token": self.current}
        return 200, {"content-type": "application/json"}, json.dumps(answer).encode()
