"""WebSocket over HTTP/2 (RFC 8441): a caller on the `h2` library, an upstream on hypercorn; all pairs with HTTP/1.1."""

import asyncio
import os

import h2.config
import h2.connection
import h2.events
import h2.settings
from hypercorn.asyncio import serve
from hypercorn.config import Config
from websockets.asyncio.client import connect
from websockets.frames import Opcode
from websockets.protocol import OPEN, Protocol, Side

from support.fakes import SECRET, FakeProvider, config
from support.process import Sidecar
from support.report import Check

MIB = 1 << 20


class Tunnel:
    """One WebSocket on a connection of its own, over HTTP/2 with prior knowledge."""

    def __init__(self, reader, writer):
        self.reader, self.writer = reader, writer
        self.http = h2.connection.H2Connection(h2.config.H2Configuration(header_encoding="utf-8"))
        self.frames = Protocol(Side.CLIENT, state=OPEN, max_size=8 * MIB)
        self.headers: dict[str, str] = {}
        self.ended = self.reset = None

    @classmethod
    async def open(cls, address: tuple[str, int], path: str, headers: dict | None = None) -> "Tunnel":
        tunnel = cls(*await asyncio.open_connection(*address))
        tunnel.http.initiate_connection()
        tunnel._flush()
        while not tunnel.http.remote_settings.get(h2.settings.SettingCodes.ENABLE_CONNECT_PROTOCOL):
            await tunnel._read()
        fields = {
            ":method": "CONNECT", ":protocol": "websocket", ":scheme": "http", ":authority": f"{address[0]}:{address[1]}",
            ":path": path, "sec-websocket-version": "13", "sec-websocket-protocol": "chat", **(headers or {}),
        }  # fmt: skip
        tunnel.http.send_headers(1, list(fields.items()))
        tunnel._flush()
        while not tunnel.headers and not tunnel.ended:
            await tunnel._read()
        return tunnel

    def _flush(self) -> None:
        self.writer.write(self.http.data_to_send())

    async def _read(self) -> None:
        data = await asyncio.wait_for(self.reader.read(1 << 16), 20)
        if not data:
            self.ended = True
            return
        for event in self.http.receive_data(data):
            if isinstance(event, h2.events.ResponseReceived):
                self.headers = dict(event.headers)
            elif isinstance(event, h2.events.DataReceived):
                self.http.acknowledge_received_data(event.flow_controlled_length, 1)
                self.frames.receive_data(event.data)
            elif isinstance(event, h2.events.StreamEnded):
                self.ended = True
            elif isinstance(event, h2.events.StreamReset):
                self.ended, self.reset = True, event.error_code
        self._flush()

    async def _send(self) -> None:
        for data in self.frames.data_to_send():
            while data:
                room = min(self.http.local_flow_control_window(1), self.http.max_outbound_frame_size)
                if not room:
                    await self._read()
                    continue
                self.http.send_data(1, data[:room])
                data = data[room:]
                self._flush()
        await self.writer.drain()

    async def send(self, message: str | bytes) -> None:
        if isinstance(message, str):
            self.frames.send_text(message.encode())
        else:
            self.frames.send_binary(message)
        await self._send()

    async def recv(self) -> str | bytes | None:
        """The next whole message; nothing at the end."""
        while True:
            for frame in self.frames.events_received():
                if frame.opcode is Opcode.TEXT:
                    return frame.data.decode()
                if frame.opcode is Opcode.BINARY:
                    return frame.data
            if self.ended:
                return None
            await self._read()

    async def close(self, code: int, reason: str) -> tuple:
        """Closes, and tells how it was closed."""
        self.frames.send_close(code, reason)
        await self._send()
        while not self.frames.close_rcvd and not self.ended:
            await self._read()
        self.writer.close()
        return self.frames.close_code, self.frames.close_reason


class Caller:
    """The same of a caller over HTTP/1.1."""

    def __init__(self, ws):
        self.ws, self.send, self.recv = ws, ws.send, ws.recv
        self.protocol, self.status = ws.subprotocol, 200

    @classmethod
    async def open(cls, address: tuple[str, int], path: str, headers: dict | None = None) -> "Caller":
        url = f"ws://{address[0]}:{address[1]}{path}"
        more = {"max_size": 8 * MIB, "ping_interval": None, "proxy": None, "compression": None}
        return cls(await connect(url, additional_headers=headers, subprotocols=["chat"], **more))

    async def close(self, code: int, reason: str) -> tuple:
        await self.ws.close(code, reason)
        return self.ws.close_code, self.ws.close_reason


async def application(scope, receive, send) -> None:
    """Echoes; refuses one path."""
    if scope["type"] != "websocket":
        return
    await receive()
    given = dict(scope["headers"]).get(b"authorization", b"").decode()
    if not given.startswith("Bearer ") or scope["path"] == "/refused":
        await send({"type": "websocket.close"})
        return
    await send({"type": "websocket.accept", "subprotocol": "chat"})
    while (event := await receive())["type"] == "websocket.receive":
        await send({"type": "websocket.send", "bytes": event.get("bytes"), "text": event.get("text")})


async def upstream(check: Check) -> int:
    settings = Config()
    settings.bind, settings.loglevel, settings.websocket_max_message_size = ["127.0.0.1:0"], "ERROR", 8 * MIB
    sockets = settings.create_sockets()
    settings.create_sockets = lambda: sockets
    over = asyncio.Event()
    running = asyncio.create_task(serve(application, settings, shutdown_trigger=over.wait))

    async def stop() -> None:
        over.set()
        await running

    check.at_end(stop)
    return sockets.insecure_sockets[0].getsockname()[1]


async def converse(kind, address: tuple[str, int], headers: dict | None = None) -> list:
    seen = []
    tunnel = await kind.open(address, "/echo", headers)
    for size in (0, 1, 125, 126, 65535, 65536, MIB):
        for message in (os.urandom(size), "ä" * (size // 2)):
            await tunnel.send(message)
            seen.append(await tunnel.recv() == message)
    seen.append(await tunnel.close(4999, "ünïcode"))
    return seen


async def main(check: Check) -> None:
    check.secret("client secret", SECRET)
    provider = await FakeProvider(check).start()
    port = await upstream(check)
    direct = ("127.0.0.1", port)
    token = {"authorization": "Bearer direct"}
    for protocol in ("h2c", "http1"):
        settings = config(provider.server.url, f"http://127.0.0.1:{port}", f'protocol = "{protocol}"\n')
        sidecar = await Sidecar.run(check, settings, {"CLIENT_SECRET": SECRET}, name=f"attache-{protocol}")
        for kind, name in ((Tunnel, "HTTP/2"), (Caller, "HTTP/1.1")):
            expected = await asyncio.wait_for(converse(kind, direct, token), 60)
            told = await asyncio.wait_for(converse(kind, sidecar.proxy), 60)
            good = all(expected[:-1]) and told == expected
            check.that(good, f"from {name} to {protocol}: messages of up to 1 MiB and the close code pass{'' if good else f': {expected} {told}'}")
        tunnel = await Tunnel.open(sidecar.proxy, "/refused")
        check.that(tunnel.headers.get(":status") == "403", f"to {protocol}: a refused handshake is told {tunnel.headers.get(':status')}")
        check.that(await sidecar.stop() == 0, "exit code 0 after SIGTERM")
