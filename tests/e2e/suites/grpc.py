"""gRPC cannot tell: every kind of call, to the server itself and through attaché, has the same outcome."""

import asyncio
import time

import grpc
from grpc import aio

from support.fakes import SECRET, FakeProvider, config
from support.http import get
from support.process import Sidecar
from support.report import Check

SERVICE = "attache.test.Calls"
# Differ by nature, per hop.
OWN = {"via", "user-agent", "authorization", "grpc-accept-encoding", "accept-encoding"}
LIMITS = [("grpc.max_receive_message_length", -1), ("grpc.max_send_message_length", -1), ("grpc.max_metadata_size", 60_000)]


class Server:
    """Messages are bytes as they are. What it is asked to do stands in the name of the method and in the metadata."""

    def __init__(self, tokens: list[str]):
        self.tokens, self.cancelled, self.refused = tokens, asyncio.Queue(), 0
        self.server = aio.server(options=LIMITS)
        kinds = {
            "Unary": grpc.unary_unary_rpc_method_handler,
            "Server": grpc.unary_stream_rpc_method_handler,
            "Client": grpc.stream_unary_rpc_method_handler,
            "Both": grpc.stream_stream_rpc_method_handler,
        }
        methods = {
            "Unary": self.unary, "Fail": self.fail, "Wait": self.wait, "Deadline": self.deadline, "Metadata": self.metadata,
            "ServerCount": self.count, "ServerFail": self.fail_after, "ServerWait": self.wait_streaming,
            "ClientSum": self.sum, "BothEcho": self.echo, "BothFail": self.both_fail,
        }  # fmt: skip
        handlers = {}
        for name, method in methods.items():
            kind = next((kind for kind in ("Server", "Client", "Both") if name.startswith(kind)), "Unary")
            handlers[name] = kinds[kind](method)
        self.server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(SERVICE, handlers),))

    async def start(self) -> int:
        port = self.server.add_insecure_port("127.0.0.1:0")
        await self.server.start()
        return port

    def look(self, context) -> dict:
        fields = list(context.invocation_metadata())
        given = [value for key, value in fields if key == "authorization"]
        self.refused += len(given) != 1 or given[0].removeprefix("Bearer ") not in self.tokens
        return dict(fields)

    async def unary(self, message, context):
        self.look(context)
        return message

    async def fail(self, message, context):
        self.look(context)
        code = next(code for code in grpc.StatusCode if code.name == message.decode())
        context.set_trailing_metadata((("x-why", "because"), ("x-why-bin", b"\x00\xff")))
        await context.abort(code, "é % \n told")

    async def wait(self, message, context):
        try:
            self.look(context)
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            self.cancelled.put_nowait("unary")
            raise

    async def deadline(self, message, context):
        self.look(context)
        left = context.time_remaining()
        # gRPC's library writes a long timeout in steps of ten seconds, rounded up: an hour may be 3610 seconds.
        return b"none" if left is None or left > 1e6 else b"%d minutes" % round(left / 60)

    async def metadata(self, message, context):
        fields = self.look(context)
        kept = tuple((key, value) for key, value in fields.items() if key.startswith("x-"))
        await context.send_initial_metadata(kept)
        context.set_trailing_metadata(kept)
        return b""

    async def count(self, message, context):
        self.look(context)
        for number in range(int(message)):
            yield b"%d" % number

    async def fail_after(self, message, context):
        self.look(context)
        for number in range(3):
            yield b"%d" % number
        await context.abort(grpc.StatusCode.DATA_LOSS, "half way")

    async def wait_streaming(self, message, context):
        try:
            self.look(context)
            yield b"first"
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            self.cancelled.put_nowait("streaming")
            raise

    async def sum(self, messages, context):
        self.look(context)
        total = 0
        async for message in messages:
            total += len(message)
        return b"%d" % total

    async def echo(self, messages, context):
        self.look(context)
        async for message in messages:
            yield message

    async def both_fail(self, messages, context):
        self.look(context)
        async for message in messages:
            yield message
            await context.abort(grpc.StatusCode.ABORTED, "enough")


def fields(metadata) -> list:
    return sorted((key, value) for key, value in metadata or () if key not in OWN)


async def outcome(call, answers=None) -> tuple:
    """What a caller sees of a call."""
    got, error = [], None
    try:
        if answers is None:
            got.append(await call)
        else:
            async for message in answers:
                got.append(message)
    except aio.AioRpcError:
        pass
    except asyncio.CancelledError:
        error = "cancelled"
    code = await call.code()
    initial = fields(await call.initial_metadata()) if error is None else []
    return got, code.name, await call.details(), initial, fields(await call.trailing_metadata()), error


async def several(*messages):
    for message in messages:
        yield message


async def unfinished():
    yield b"m"
    await asyncio.sleep(60)


class Caller:
    def __init__(self, target: str, metadata: tuple, options=()):
        self.channel = aio.insecure_channel(target, options=[*LIMITS, *options])
        self.metadata = metadata

    def call(self, name: str, message=b"", metadata=(), **more):
        kinds = {"Server": self.channel.unary_stream, "Client": self.channel.stream_unary, "Both": self.channel.stream_stream}
        kind = next((kinds[kind] for kind in kinds if name.startswith(kind)), self.channel.unary_unary)
        return kind(f"/{SERVICE}/{name}")(message, metadata=(*self.metadata, *metadata), **more)

    async def unary(self, *arguments, **more):
        return await outcome(self.call(*arguments, **more))

    async def stream(self, *arguments, **more):
        call = self.call(*arguments, **more)
        return await outcome(call, call)


def cases() -> dict:
    """Each is a function of the caller."""
    large = b"m" * (8 << 20)
    found = {
        "unary": lambda caller: caller.unary("Unary", b"hello"),
        "an empty message": lambda caller: caller.unary("Unary", b""),
        "a message of 8 MiB": lambda caller: caller.unary("Unary", large),
        "gzip": lambda caller: caller.unary("Unary", b"z" * 100_000, compression=grpc.Compression.Gzip),
        "no such method": lambda caller: caller.unary("Missing", b""),
        "a deadline that is far away": lambda caller: caller.unary("Deadline", b"", timeout=3600),
        "no deadline": lambda caller: caller.unary("Deadline", b""),
        "a deadline that passes": lambda caller: caller.unary("Wait", b"", timeout=0.5),
        "a deadline that passes within a stream": lambda caller: caller.stream("ServerWait", b"", timeout=0.5),
        "metadata": lambda caller: caller.unary(
            "Metadata", b"", (("x-text", "plain"), ("x-bytes-bin", bytes(range(256))), ("x-empty", ""))
        ),
        "large metadata": lambda caller: caller.unary("Metadata", b"", (("x-large", "y" * 20_000),)),
        "no answers": lambda caller: caller.stream("ServerCount", b"0"),
        "1,000 answers": lambda caller: caller.stream("ServerCount", b"1000"),
        "answers and then an error": lambda caller: caller.stream("ServerFail", b""),
        "no messages": lambda caller: caller.unary("ClientSum", several()),
        "1,000 messages": lambda caller: caller.unary("ClientSum", several(*[b"m" * 1000] * 1000)),
        "16 MiB in messages": lambda caller: caller.unary("ClientSum", several(*[large] * 2)),
        "both ways": lambda caller: caller.stream("BothEcho", several(*[b"%d" % number for number in range(1000)])),
        "both ways, large": lambda caller: caller.stream("BothEcho", several(*[b"m" * (1 << 20)] * 16)),
        "an error while messages still come": lambda caller: caller.stream("BothFail", unfinished()),
        "one at a time": one_at_a_time,
    }
    for code in grpc.StatusCode:
        if code is not grpc.StatusCode.OK:
            found[f"status {code.name}"] = lambda caller, code=code: caller.unary("Fail", code.name.encode())
    return found


async def one_at_a_time(caller: Caller) -> list:
    """Each message is sent only when the one before has been answered."""
    call, got = caller.call("BothEcho", None), []
    for number in range(200):
        await call.write(b"%d" % number)
        got.append(await call.read())
    await call.done_writing()
    got.append(await call.read() is aio.EOF)
    return [*got, (await call.code()).name]


async def main(check: Check) -> None:
    check.secret("client secret", SECRET)
    provider = await FakeProvider(check).start()
    gone = '\n[routes.gone]\npath = "/attache.test.Gone"\nupstream = "http://127.0.0.1:1"\ncredential = "main"\nprotocol = "h2c"\n'
    server = Server(provider.tokens)
    port = await server.start()
    more = f'protocol = "h2c"\nresponse_timeout = "200ms"\n{gone}'
    sidecar = await Sidecar.run(check, config(provider.server.url, f"http://127.0.0.1:{port}", more), {"CLIENT_SECRET": SECRET})
    while (await get(sidecar.admin, "/readyz")).status != 200:
        await asyncio.sleep(0.02)
    direct = Caller(f"127.0.0.1:{port}", (("authorization", f"Bearer {provider.tokens[0]}"),))
    through = Caller(f"127.0.0.1:{sidecar.proxy[1]}", ())
    different = []
    for name, case in cases().items():
        one = await asyncio.wait_for(case(direct), 60)
        other = await asyncio.wait_for(case(through), 60)
        if one != other:
            different.append(name)
            check.note(f"{name}: direct {str(one)[-300:]} through attaché {str(other)[-300:]}")
    check.that(not different, f"{len(different)} of {len(cases())} outcomes differ {different or ''}")
    # One of them was that the token is refused. The next token request is a second away from the first.
    for _ in range(200):
        await asyncio.sleep(0 if len(provider.tokens) == 2 else 0.05)
    check.that(len(provider.tokens) == 2, f"{len(provider.tokens)} token requests: a call that is refused refreshes the token")

    for caller, way in ((direct, "direct"), (through, "through attaché")):
        for name, kind in (("Wait", "unary"), ("ServerWait", "streaming")):
            call = caller.call(name, b"")
            if kind == "streaming":
                await call.read()
            else:
                await asyncio.sleep(0.2)
            call.cancel()
            told = [await asyncio.wait_for(server.cancelled.get(), 10)]
            while told[-1] != kind:  # those whose deadline passed, above
                told.append(await asyncio.wait_for(server.cancelled.get(), 10))
            check.that(call.cancelled(), f"{way}: the server sees a {kind} call cancelled")

    began = time.monotonic()
    answers = await asyncio.gather(*(through.unary("Unary", b"%d" % number) for number in range(1000)))
    good = [answer[0] == [b"%d" % number] for number, answer in enumerate(answers)]
    check.that(all(good), f"1,000 calls at once: {sum(good)} good, {time.monotonic() - began:.1f} s")
    streams = await asyncio.gather(*(one_at_a_time(through) for _ in range(100)))
    check.that(all(stream[-1] == "OK" for stream in streams), "100 streams at once, 200 messages each way, one at a time")
    check.that(server.refused == 0, f"{server.refused} calls came without exactly attaché's token")

    forged = await through.unary("Unary", b"", (("authorization", "Bearer forged"),))
    check.that(forged[1] == "OK" and server.refused == 0, "a caller's own token is replaced")
    foreign = Caller(f"127.0.0.1:{sidecar.proxy[1]}", (), [("grpc.default_authority", "evil.example")])
    for name, caller, path, expected in (
        ("an upstream that is not there", through, "/attache.test.Gone/Call", "UNAVAILABLE"),
        ("a foreign authority", foreign, f"/{SERVICE}/Unary", "UNKNOWN"),
    ):
        answer = await outcome(caller.channel.unary_unary(path)(b""))
        check.seen(f"answer to {name}", str(answer))
        check.that(answer[1] == expected and answer[2].startswith("attache: "), f"{name}: {answer[1]}, {answer[2]}")

    # The server goes away with a stream under way, and takes no new ones: what it took, it finishes.
    call = through.call("BothEcho", None)
    await call.write(b"before")
    await call.read()
    stopping = asyncio.create_task(server.server.stop(10))
    await asyncio.sleep(0.2)
    await call.write(b"after")
    kept = await call.read()
    await call.done_writing()
    check.that(kept == b"after" and (await call.code()).name == "OK", "a server that leaves finishes the stream it has")
    await stopping
    answer = await through.unary("Unary", b"")
    check.that(answer[1] == "UNAVAILABLE", f"a server that is gone: {answer[1]}")
    for caller in (direct, through, foreign):
        await caller.channel.close()
    check.that(await sidecar.stop() == 0, "exit code 0 after SIGTERM")
