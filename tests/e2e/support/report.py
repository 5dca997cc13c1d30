"""What a suite says: checks that hold or not, numbers, and whether a secret was seen where none may be."""

import base64
import contextlib
import tempfile
import time
import urllib.parse
from pathlib import Path


class Skip(Exception):
    """The machine lacks what the suite needs."""


class Failed(Exception):
    """The suite cannot go on."""


class Check:
    """One suite's run: its folder, its processes, its checks."""

    def __init__(self, attache: Path):
        self.attache = attache
        self.passed = 0
        self.failures = 0
        self.began = time.monotonic()
        self._stack = contextlib.AsyncExitStack()
        self.folder = Path(self._stack.enter_context(tempfile.TemporaryDirectory(prefix="attache-e2e-")))
        self._secrets: dict[str, str] = {}
        self._seen: list[tuple[str, str]] = []

    def that(self, holds: bool, what: str) -> bool:
        """A claim, printed with whether it holds."""
        self.passed += bool(holds)
        self.failures += not holds
        print(f"[{time.monotonic() - self.began:6.1f}] {'ok    ' if holds else 'FAILED'} {what}", flush=True)
        return bool(holds)

    def note(self, what: str) -> None:
        """A number or a step worth telling."""
        print(f"[{time.monotonic() - self.began:6.1f}]        {what}", flush=True)

    def at_end(self, close) -> None:
        """Something to close when the suite ends, whatever happens: an async function."""
        self._stack.push_async_callback(close)

    async def close(self) -> None:
        await self._stack.aclose()

    def secret(self, name: str, value: str) -> str:
        """A value that may stand in nothing that attaché says, nor any form of it."""
        quoted = urllib.parse.quote_plus(value)
        forms = {value, quoted, urllib.parse.quote(value), base64.b64encode(value.encode()).decode().rstrip("=")}
        if value.count(".") == 2:  # a JWT: its signature alone is enough to be told
            forms.add(value.rsplit(".", 1)[1])
        for form in forms:
            if len(form) >= 8:
                self._secrets[form] = name
        return value

    def seen(self, where: str, text: str) -> None:
        """Something that attaché printed or answered by itself."""
        self._seen.append((where, text))

    def nothing_leaked(self) -> bool:
        """Whether no secret stands in anything that was seen."""
        found = {(where, name) for where, text in self._seen for form, name in self._secrets.items() if form in text}
        size = sum(len(text) for _, text in self._seen)
        told = f"no form of {len(self._secrets)} secrets and tokens in {size} characters that attaché said"
        return self.that(not found, told if not found else f"{told}: {sorted(found)}")
