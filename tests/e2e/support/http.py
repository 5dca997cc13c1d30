"""Plain HTTP/1.1 over asyncio, both sides, with nothing between the test and the bytes. And a load that does not wait."""

import asyncio
import json
import time
from dataclasses import dataclass, field


class Broken(Exception):
    """The connection ended before the answer did, or what came is not HTTP."""


@dataclass
class Answer:
    status: int
    headers: list[tuple[str, str]]
    body: bytes

    def header(self, name: str) -> str | None:
        return next((value for key, value in self.headers if key == name), None)

    def json(self):
        return json.loads(self.body)


async def read_head(reader: asyncio.StreamReader) -> tuple[str, list[tuple[str, str]]]:
    try:
        head = await reader.readuntil(b"\r\n\r\n")
    except (asyncio.IncompleteReadError, asyncio.LimitOverrunError, OSError) as error:
        raise Broken(f"no head: {error}") from None
    first, *rest = head[:-4].decode("latin-1").split("\r\n")
    return first, [(key.lower(), value.strip()) for key, _, value in (line.partition(":") for line in rest)]


async def read_body(reader: asyncio.StreamReader, headers: list[tuple[str, str]], until_close: bool) -> bytes:
    fields = dict(headers)
    try:
        if fields.get("transfer-encoding", "").lower() == "chunked":
            parts = []
            while size := int(await reader.readuntil(b"\r\n"), 16):
                parts.append(await reader.readexactly(size))
                await reader.readexactly(2)
            while await reader.readuntil(b"\r\n") != b"\r\n":
                pass
            return b"".join(parts)
        if "content-length" in fields:
            return await reader.readexactly(int(fields["content-length"]))
        return await reader.read() if until_close else b""
    except (asyncio.IncompleteReadError, ValueError, OSError) as error:
        raise Broken(f"cut body: {error}") from None


class Connection:
    """One connection of a caller."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, host: str):
        self.reader, self.writer, self.host = reader, writer, host
        self.usable = True

    @classmethod
    async def open(cls, address: tuple[str, int], host: str | None = None) -> "Connection":
        try:
            reader, writer = await asyncio.open_connection(*address, limit=1 << 20)
        except OSError as error:
            raise Broken(f"cannot connect: {error}") from None
        return cls(reader, writer, host or f"{address[0]}:{address[1]}")

    async def request(self, method: str, target: str, headers: dict | None = None, body: bytes | None = None) -> Answer:
        lines = [f"{method} {target} HTTP/1.1", f"host: {self.host}"]
        lines += [f"{key}: {value}" for key, value in (headers or {}).items()]
        if body is not None:
            lines.append(f"content-length: {len(body)}")
        self.usable = False
        try:
            self.writer.write("\r\n".join([*lines, "", ""]).encode() + (body or b""))
            await self.writer.drain()
        except OSError as error:
            raise Broken(f"cannot send: {error}") from None
        first, fields = await read_head(self.reader)
        while first.split(" ")[1].startswith("1"):
            first, fields = await read_head(self.reader)
        status = int(first.split(" ")[1])
        bodiless = method == "HEAD" or status in (204, 304)
        answer = Answer(status, fields, b"" if bodiless else await read_body(self.reader, fields, True))
        self.usable = (answer.header("connection") or "").lower() != "close"
        return answer

    def close(self) -> None:
        self.writer.close()


async def get(address: tuple[str, int], target: str, method: str = "GET", headers=None, body=None) -> Answer:
    """One request on a connection of its own."""
    connection = await Connection.open(address)
    try:
        return await connection.request(method, target, headers, body)
    finally:
        connection.close()


@dataclass
class Outcome:
    began: float  # wall clock, to be compared with what other processes saw
    ended: float
    status: int  # 0: no whole answer
    reason: str = ""


@dataclass
class Load:
    """Requests at a fixed rate, whether the earlier ones have been answered or not."""

    address: tuple[str, int]
    make: object  # number -> (method, target, headers, body, verify(Answer) -> str | None)
    outcomes: list[Outcome] = field(default_factory=list)
    stopped: bool = False

    async def run(self, rate: float, count: int) -> list[Outcome]:
        self._idle: list[Connection] = []
        begun = time.monotonic()
        tasks = set()
        for number in range(count):
            if self.stopped:
                break
            ahead = begun + number / rate - time.monotonic()
            if ahead > 0:
                await asyncio.sleep(ahead)
            task = asyncio.create_task(self._one(number))
            tasks.add(task)
            task.add_done_callback(tasks.discard)
        await asyncio.gather(*tasks)
        for connection in self._idle:
            connection.close()
        return self.outcomes

    async def _one(self, number: int) -> None:
        method, target, headers, body, verify = self.make(number)
        began = time.time()
        connection = None
        try:
            while self._idle and connection is None:
                connection = self._idle.pop()
                if connection.reader.at_eof():
                    connection.close()
                    connection = None
            connection = connection or await Connection.open(self.address)
            answer = await asyncio.wait_for(connection.request(method, target, headers, body), 30)
            status, reason = answer.status, verify(answer) or ""
        except (Broken, TimeoutError, OSError, IndexError, ValueError) as error:
            status, reason = 0, f"{type(error).__name__}: {error}"
        self.outcomes.append(Outcome(began, time.time(), status, reason))
        if connection and connection.usable:
            self._idle.append(connection)
        elif connection:
            connection.close()


class Server:
    """A peer in this process. `answer(request) -> (status, headers, body)` may wait, and may raise `Broken` to cut."""

    def __init__(self, answer):
        self._answer = answer
        self.requests = 0
        self.connections: set[asyncio.Task] = set()

    async def start(self, check) -> "Server":
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0, limit=1 << 20, backlog=4096)
        self.address = self._server.sockets[0].getsockname()
        check.at_end(self.stop)
        return self

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.address[1]}"

    async def stop(self) -> None:
        self._server.close()
        for task in list(self.connections):
            task.cancel()
        await asyncio.gather(*self.connections, return_exceptions=True)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections.add(asyncio.current_task())
        try:
            while True:
                first, headers = await read_head(reader)
                method, target, _ = first.split(" ")
                body = await read_body(reader, headers, False)
                self.requests += 1
                status, extra, content = await self._answer(Request(method, target, headers, body))
                lines = [f"HTTP/1.1 {status} X", f"content-length: {len(content)}"]
                lines += [f"{key}: {value}" for key, value in extra.items()]
                writer.write("\r\n".join([*lines, "", ""]).encode() + content)
                await writer.drain()
        except (Broken, OSError, asyncio.CancelledError):
            pass
        finally:
            self.connections.discard(asyncio.current_task())
            writer.close()


@dataclass
class Request:
    method: str
    target: str
    headers: list[tuple[str, str]]
    body: bytes

    def header(self, name: str) -> str | None:
        return next((value for key, value in self.headers if key == name), None)
