"""Processes: started, read line by line, waited for by what they say, ended."""

import asyncio
import json
import os
import re
import signal
import socket
from pathlib import Path

from .report import Check, Failed


class Process:
    """A running program whose whole output is kept."""

    def __init__(self, check: Check, name: str):
        self.check = check
        self.name = name
        self.lines: list[str] = []
        self._news = asyncio.Condition()
        self._reader: asyncio.Task | None = None
        self.process: asyncio.subprocess.Process | None = None

    async def start(self, *command, env: dict | None = None, cwd: Path | None = None, limit: int = 1 << 22):
        self.process = await asyncio.create_subprocess_exec(
            *[str(part) for part in command],
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
            env=env,
            cwd=cwd,
            limit=limit,
        )
        self._reader = asyncio.create_task(self._read())
        self.check.at_end(self.kill)
        return self

    async def _read(self) -> None:
        while line := await self.process.stdout.readline():
            async with self._news:
                self.lines.append(line.decode(errors="replace").rstrip("\n"))
                self._news.notify_all()
        async with self._news:
            self._news.notify_all()

    def text(self) -> str:
        return "\n".join(self.lines)

    async def line(self, pattern: str, timeout: float = 20, start: int = 0) -> re.Match:
        """Waits for a line that matches, from line `start` on."""
        at = start

        async def search() -> re.Match:
            nonlocal at
            async with self._news:
                while True:
                    while at < len(self.lines):
                        at += 1
                        if found := re.search(pattern, self.lines[at - 1]):
                            return found
                    if self._reader.done() or self.process.stdout.at_eof():
                        raise Failed(f"{self.name} ended without saying {pattern!r}:\n{self.text()[-4000:]}")
                    await self._news.wait()

        try:
            return await asyncio.wait_for(search(), timeout)
        except TimeoutError:
            raise Failed(f"{self.name} did not say {pattern!r} in {timeout} s:\n{self.text()[-4000:]}") from None

    def signal(self, number: signal.Signals) -> None:
        if self.process.returncode is None:
            self.process.send_signal(number)

    async def ended(self, timeout: float = 20) -> int:
        """Waits for the end, with its whole output read; gives the exit code."""
        try:
            code = await asyncio.wait_for(self.process.wait(), timeout)
        except TimeoutError:
            raise Failed(f"{self.name} did not end in {timeout} s:\n{self.text()[-4000:]}") from None
        await self._reader
        return code

    async def stop(self, timeout: float = 20) -> int:
        self.signal(signal.SIGTERM)
        return await self.ended(timeout)

    async def kill(self) -> None:
        """Ends it, whatever it is doing: asked first, because nginx killed outright leaves its workers behind."""
        self.signal(signal.SIGTERM)
        try:
            await self.ended(3)
        except Failed:
            self.signal(signal.SIGKILL)
            await self.ended()


class Sidecar(Process):
    """The real application on ports of its own choice."""

    proxy: tuple[str, int]
    admin: tuple[str, int]

    @classmethod
    async def run(cls, check: Check, config: str, env: dict | None = None, name: str = "attache") -> "Sidecar":
        """Writes the configuration (TOML, without listeners), starts, waits until it listens."""
        self = cls(check, name)
        await self.begin(config, env)
        await self.listening()
        return self

    async def begin(self, config: str, env: dict | None = None, wrap: list[str] | None = None) -> None:
        path = self.check.folder / f"{self.name}.toml"
        path.write_text(config)
        check = self.check
        check.at_end(self._remember)
        environment = {
            "PATH": os.environ["PATH"],
            "ATTACHE__LOG__FORMAT": "json",
            "ATTACHE__PROXY__LISTEN": "127.0.0.1:0",
            "ATTACHE__ADMIN__LISTEN": "127.0.0.1:0",
            **(env or {}),
        }
        await self.start(*(wrap or []), check.attache, "run", "--config", path, env=environment)

    async def listening(self) -> None:
        match = await self.line(r"listening")
        found = json.loads(match.string)
        fields = found.get("fields", found)
        self.proxy = _address(fields["proxy"])
        self.admin = _address(fields["admin"])

    async def _remember(self) -> None:
        self.check.seen(f"output of {self.name}", self.text())

    def memory(self) -> int:
        """Resident memory in bytes."""
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        return int(re.search(r"VmRSS:\s+(\d+)", status).group(1)) * 1024

    def descriptors(self) -> int:
        """How many file descriptors it has open."""
        return len(list(Path(f"/proc/{self.process.pid}/fd").iterdir()))

    def peak(self) -> int:
        """The most resident memory so far, in bytes."""
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        return int(re.search(r"VmHWM:\s+(\d+)", status).group(1)) * 1024


def _address(text: str) -> tuple[str, int]:
    host, port = text.rsplit(":", 1)
    return host.strip("[]"), int(port)


def reserve_port() -> tuple[socket.socket, int]:
    """A port that nobody else gets as long as the socket lives, though a server that sets SO_REUSEADDR may listen on it.

    For servers that cannot choose a port themselves, or must come back on the same one: the kernel gives a port that is
    bound to no outgoing connection, and a socket that is bound but does not listen refuses connections.
    """
    held = socket.socket()
    held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    held.bind(("127.0.0.1", 0))
    return held, held.getsockname()[1]
