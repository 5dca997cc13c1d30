"""WebSocket with Python's `websockets`, and server-sent events in lock-step: direct and through attaché, the same outcomes."""

import asyncio
import contextlib
import hashlib
import os
import socket
import struct

from support.fakes import SECRET, FakeProvider, config
from support.http import Connection, read_head
from support.process import Sidecar
from support.report import Check
from websockets.asyncio.client import connect
from websockets.asyncio.server import serve
from websockets.exceptions import ConnectionClosed, InvalidStatus

MIB = 1 << 20
DIRECT = "token-of-the-direct-caller"


class Upstream:
    """Echoes; does as it is told by messages that begin with `!`; remembers how each connection ended for it."""

    def __init__(self, provider: FakeProvider):
        self.provider = provider
        self.ends: dict[str, asyncio.Future] = {}

    async def start(self, check: Check) -> int:
        self.server = await serve(
            self._serve, "127.0.0.1", 0, process_request=self._admit, select_subprotocol=self._select, max_size=8 * MIB,
            ping_interval=None,
        )  # fmt: skip
        check.at_end(self.stop)
        return self.server.sockets[0].getsockname()[1]

    async def stop(self) -> None:
        self.server.close()
        await self.server.wait_closed()

    def _admit(self, connection, request):
        given = request.headers.get_all("authorization")
        known = [f"Bearer {token}" for token in [*self.provider.tokens, DIRECT]]
        if len(given) != 1 or given[0] not in known:
            return connection.respond(401, "no token\n")
        if request.path == "/refused":
            answer = connection.respond(403, "not today\n")
            answer.headers["x-why"] = "closed"
            return answer
        return None

    def _select(self, _connection, offered):
        return "chat" if "chat" in offered else None

    def end(self, path: str) -> asyncio.Future:
        return self.ends.setdefault(path, asyncio.get_running_loop().create_future())

    async def _serve(self, connection) -> None:
        try:
            async for message in connection:
                if message == "!abort":
                    reset(connection.transport)
                elif isinstance(message, str) and message.startswith("!close "):
                    _, code, reason = message.split(" ", 2)
                    await connection.close(int(code), reason)
                elif message == "!fragments":
                    await connection.send(part for part in ["one ", "two ", "", "three"])
                else:
                    await connection.send(message)
        except ConnectionClosed:
            pass
        end = self.end(connection.request.path)
        if not end.done():
            end.set_result(closed(connection))


def reset(transport) -> None:
    """Ends a connection at once, with a reset."""
    sock = transport.get_extra_info("socket")
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    transport.abort()


def closed(connection) -> tuple:
    """How a connection ended: code, reason."""
    return connection.close_code, connection.close_reason


class Caller:
    """Cases against one address. Each returns what a program would see."""

    def __init__(self, address: tuple[str, int], upstream: Upstream, name: str):
        self.url, self.upstream, self.name = f"ws://{address[0]}:{address[1]}", upstream, name
        self.headers = {"authorization": f"Bearer {DIRECT}"} if name == "direct" else {}

    def open(self, path: str, **more):
        more = {"max_size": 8 * MIB, "ping_interval": None, "proxy": None, **more}
        return connect(self.url + path, additional_headers=self.headers, **more)

    async def echoes(self):
        seen = []
        async with self.open("/echo") as ws:
            for size in (0, 1, 125, 126, 65535, 65536, MIB):
                for message in (os.urandom(size), "ä" * (size // 2)):
                    await ws.send(message)
                    seen.append(await ws.recv() == message)
        return seen, closed(ws)

    async def fragments(self):
        async with self.open("/fragments") as ws:
            await ws.send(part for part in ["a", "", "b" * 70_000, "c"])
            sent = await ws.recv()
            await ws.send("!fragments")
            return hashlib.sha256(sent.encode()).hexdigest(), [part async for part in ws.recv_streaming()]

    async def pings(self):
        async with self.open("/pings") as ws:
            for data in (b"", b"x" * 125):
                await (await ws.ping(data))
            await ws.pong(b"unasked")
            await ws.send("after")
            return await ws.recv()

    async def negotiation(self):
        async with self.open("/negotiation", subprotocols=["other", "chat"]) as ws:
            await ws.send("x" * 10_000)
            answer = {key.lower() for key in ws.response.headers} - {"date", "server"}
            names = [extension.name for extension in ws.protocol.extensions]
            return ws.subprotocol, names, ws.response.status_code, sorted(answer), len(await ws.recv())

    async def close_codes(self):
        seen = []
        for code, reason in ((1000, ""), (1001, "going"), (3000, "ünïcode"), (4999, "x" * 123)):
            path = f"/closed/{self.name}/{code}"
            async with self.open(path) as ws:
                await ws.close(code, reason)
            seen.append((closed(ws), await asyncio.wait_for(self.upstream.end(path), 10)))
            async with self.open("/closes") as ws:
                await ws.send(f"!close {code} {reason}")
                with contextlib.suppress(ConnectionClosed):
                    await ws.recv()
            seen.append(closed(ws))
        return seen

    async def refused(self):
        try:
            async with self.open("/refused"):
                return "not refused"
        except InvalidStatus as error:
            answer = error.response
            return answer.status_code, answer.body, answer.headers.get("x-why")

    async def upstream_breaks_off(self):
        async with self.open("/aborted") as ws:
            await ws.send("!abort")
            try:
                await asyncio.wait_for(ws.recv(), 10)
            except ConnectionClosed as error:
                return type(error).__name__, error.rcvd, closed(ws)

    async def caller_breaks_off(self):
        path = f"/broken/{self.name}"
        async with self.open(path) as ws:
            await ws.send("here")
            await ws.recv()
            reset(ws.transport)
            return await asyncio.wait_for(self.upstream.end(path), 10)

    async def big_both_ways(self):
        async with self.open("/big", compression=None) as ws:
            messages = [os.urandom(MIB) for _ in range(16)]

            async def push() -> None:
                for message in messages:
                    await ws.send(message)

            pushing = asyncio.create_task(push())
            seen = [await ws.recv() == message for message in messages]
            await pushing
            return seen

    async def many(self):
        async def one(number: int) -> bool:
            async with self.open(f"/many/{number}") as ws:
                for turn in range(20):
                    await ws.send(f"{number} {turn}")
                    if await ws.recv() != f"{number} {turn}":
                        return False
                return True

        return await asyncio.gather(*[one(number) for number in range(100)])

    async def quiet(self):
        async with self.open("/quiet") as ws:
            await asyncio.sleep(3)  # longer than attaché's idle_timeout, which is for requests
            await ws.send("still there")
            return await ws.recv()


CASES = [
    ("text and binary from 0 bytes to 1 MiB come back", Caller.echoes),
    ("fragments arrive as such", Caller.fragments),
    ("pings are answered", Caller.pings),
    ("subprotocol, extension and the fields of the 101", Caller.negotiation),
    ("close codes and reasons, from either side", Caller.close_codes),
    ("a refused upgrade is an ordinary answer", Caller.refused),
    ("the upstream breaks off", Caller.upstream_breaks_off),
    ("the caller breaks off", Caller.caller_breaks_off),
    ("16 messages of 1 MiB each way at once", Caller.big_both_ways),
    ("100 tunnels, none mixed up", Caller.many),
    ("a tunnel that is quiet for a while", Caller.quiet),
]


async def main(check: Check) -> None:
    check.secret("client secret", SECRET)
    provider = await FakeProvider(check).start()
    upstream = Upstream(provider)
    port = await upstream.start(check)
    settings = config(provider.server.url, f"http://127.0.0.1:{port}", '[proxy]\nidle_timeout = "1s"\n')
    sidecar = await Sidecar.run(check, settings, {"CLIENT_SECRET": SECRET})
    direct = Caller(("127.0.0.1", port), upstream, "direct")
    through = Caller(sidecar.proxy, upstream, "through")
    for claim, case in CASES:
        expected = await asyncio.wait_for(case(direct), 60)
        told = await asyncio.wait_for(case(through), 60)
        good = expected is not None and "False" not in str(expected) and told == expected
        check.that(good, f"{claim}{'' if good else f': {str(expected)[:300]} {str(told)[:300]}'}")
    check.that(await sidecar.stop() == 0, "exit code 0 after SIGTERM")

    await events(check, provider)


async def events(check: Check, provider: FakeProvider) -> None:
    """An event is written only once the one before it has arrived: whoever buffers never sees the second."""
    arrived = asyncio.Event()

    async def stream(reader, writer) -> None:
        await read_head(reader)
        head = "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ncache-control: no-cache\r\ntransfer-encoding: chunked\r\n\r\n"
        writer.write(head.encode())
        for number in range(50):
            event = f"id: {number}\ndata: x\n\n".encode()
            writer.write(f"{len(event):x}\r\n".encode() + event + b"\r\n")
            await writer.drain()
            await asyncio.wait_for(arrived.wait(), 5)
            arrived.clear()
        writer.write(b"0\r\n\r\n")
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(stream, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    sidecar = await Sidecar.run(
        check, config(provider.server.url, f"http://127.0.0.1:{port}"), {"CLIENT_SECRET": SECRET}, name="attache-events"
    )
    seen = {}
    for name, address in (("direct", ("127.0.0.1", port)), ("through", sidecar.proxy)):
        connection = await Connection.open(address)
        connection.writer.write(f"GET /events HTTP/1.1\r\nhost: {connection.host}\r\naccept: text/event-stream\r\n\r\n".encode())
        first, headers = await asyncio.wait_for(read_head(connection.reader), 5)
        fields = dict(headers)
        chunks = []
        while size := int(await asyncio.wait_for(connection.reader.readuntil(b"\r\n"), 5), 16):
            chunks.append(await connection.reader.readexactly(size + 2))
            arrived.set()
        connection.close()
        seen[name] = (first, fields["content-type"], fields["cache-control"], chunks)
    check.that(len(seen["direct"][3]) == 50 and seen["through"] == seen["direct"], "50 events, each sent once the last one had arrived")
    check.that(await sidecar.stop() == 0, "exit code 0 after SIGTERM")
    server.close()
