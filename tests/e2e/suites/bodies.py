"""Large, slow and broken bodies: 1 GiB both ways in flat memory, and what is cut looks cut (F8), 1,000 of 1,000."""

import asyncio
import hashlib
import re
import socket
import struct
import time

from support import tools
from support.fakes import SECRET, FakeProvider, config
from support.http import Broken, Connection, get, read_head
from support.process import Process, Sidecar
from support.report import Check

GIB = 1 << 30
BLOCK = b"attache " * 8192
GROWTH = 16 << 20  # what 1 GiB may cost in memory


async def main(check: Check) -> None:
    check.secret("client secret", SECRET)
    provider = await FakeProvider(check).start()
    upstream = await Process(check, "upstream").start("node", tools.PEERS / "bulk.mjs")
    port = int((await upstream.line(r"^listening (\d+)")).group(1))
    settings = config(provider.server.url, f"http://127.0.0.1:{port}")
    sidecar = await Sidecar.run(check, settings, {"CLIENT_SECRET": SECRET})
    expected = hashlib.sha256()
    for _ in range(GIB // len(BLOCK)):
        expected.update(BLOCK)
    expected = expected.hexdigest()
    await get(sidecar.proxy, "/down/1")
    before = sidecar.memory()

    for target in (f"/down/{GIB}", f"/down-chunked/{GIB}"):
        began = time.monotonic()
        size, digest = await download(sidecar.proxy, target)
        rate = size / (time.monotonic() - began) / 1e6
        check.that((size, digest) == (GIB, expected), f"{target}: {size} bytes whole, {rate:.0f} MB/s")
    for chunked in (False, True):
        began = time.monotonic()
        told = await upload(sidecar.proxy, chunked)
        rate = GIB / (time.monotonic() - began) / 1e6
        check.that(told == f"{GIB} {expected}", f"1 GiB up {'chunked' if chunked else 'with a length'}: whole, {rate:.0f} MB/s")
    growth = sidecar.peak() - before
    check.that(growth <= GROWTH, f"memory grew by {growth / 1e6:.1f} MB at most, from {before / 1e6:.1f} MB")

    await slow_readers(check, sidecar)
    await cut_answers(check, sidecar)
    await cut_uploads(check, sidecar, upstream)
    await events(check, sidecar)
    check.that(await sidecar.stop() == 0, "exit code 0 after SIGTERM")


async def download(address, target: str) -> tuple[int, str]:
    connection = await Connection.open(address)
    connection.writer.write(f"GET {target} HTTP/1.1\r\nhost: {connection.host}\r\n\r\n".encode())
    _, headers = await read_head(connection.reader)
    reader, size, digest = connection.reader, 0, hashlib.sha256()
    chunked = dict(headers).get("transfer-encoding") == "chunked"
    length = None if chunked else int(dict(headers)["content-length"])
    while True:
        left = int(await reader.readuntil(b"\r\n"), 16) if chunked else length
        if not left:
            break
        while left:
            part = await reader.read(min(left, 1 << 18))
            if not part:
                raise Broken("cut")
            digest.update(part)
            size += len(part)
            left -= len(part)
        if not chunked:
            break
        await reader.readexactly(2)
    connection.close()
    return size, digest.hexdigest()


async def upload(address, chunked: bool) -> str:
    connection = await Connection.open(address)
    framing = "transfer-encoding: chunked" if chunked else f"content-length: {GIB}"
    writer = connection.writer
    writer.write(f"POST /up HTTP/1.1\r\nhost: {connection.host}\r\n{framing}\r\n\r\n".encode())
    part = b"%x\r\n%b\r\n" % (len(BLOCK), BLOCK) if chunked else BLOCK
    for _ in range(GIB // len(BLOCK)):
        writer.write(part)
        await writer.drain()
    if chunked:
        writer.write(b"0\r\n\r\n")
    _, headers = await read_head(connection.reader)
    fields = dict(headers)
    if "content-length" in fields:
        body = await connection.reader.readexactly(int(fields["content-length"]))
    else:
        body = await connection.reader.readexactly(int(await connection.reader.readuntil(b"\r\n"), 16))
    connection.close()
    return body.decode()


async def slow_readers(check: Check, sidecar: Sidecar) -> None:
    """F23: 50 callers ask for 1 GiB and do not read, 50 send to an upstream that is slower than they are."""
    before = sidecar.memory()
    connections = [await Connection.open(sidecar.proxy) for _ in range(50)]
    for connection in connections:
        connection.writer.transport.pause_reading()
        connection.writer.write(f"GET /down/{GIB} HTTP/1.1\r\nhost: {connection.host}\r\n\r\n".encode())
    # Other requests, so that what the fifty may hold has been filled by the time they are done.
    for _ in range(20):
        await download(sidecar.proxy, f"/down/{16 << 20}")
    growth = sidecar.memory() - before
    check.that(growth <= 64 << 20, f"50 callers that do not read their GiB: memory grew by {growth / 1e6:.1f} MB")
    for connection in connections:
        connection.writer.transport.abort()

    before, taken = sidecar.memory(), 0

    async def push() -> Connection:
        nonlocal taken
        connection = await Connection.open(sidecar.proxy)
        connections.append(connection)
        connection.writer.write(f"POST /ignore HTTP/1.1\r\nhost: {connection.host}\r\ncontent-length: {GIB}\r\n\r\n".encode())
        try:
            while True:
                connection.writer.write(BLOCK)
                await asyncio.wait_for(connection.writer.drain(), 1)
                taken += len(BLOCK)
        except TimeoutError:  # nobody takes any more
            return connection

    connections = []
    await asyncio.gather(*[push() for _ in range(50)])
    growth = sidecar.memory() - before
    sent = taken / 1e6
    check.that(growth <= 64 << 20, f"50 uploads that the upstream does not read: {sent:.0f} MB sent, memory grew by {growth / 1e6:.1f} MB")
    # A reset is seen though nobody reads. An ordinary close would not be: its FIN waits behind the bytes that nobody takes,
    # in the caller's own kernel, and only response_timeout ends such a request.
    for connection in connections:
        sock = connection.writer.get_extra_info("socket")
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        connection.writer.transport.abort()
    took = await in_flight_is(sidecar, 0, 10)
    check.that(took < 10, f"50 callers that reset their uploads are gone after {took:.1f} s, though nobody reads what they sent")


async def in_flight_is(sidecar: Sidecar, count: int, patience: float) -> float:
    """Waits until so many requests are in flight; how long that took."""
    began = time.monotonic()
    while (took := time.monotonic() - began) < patience:
        text = (await get(sidecar.admin, "/metrics")).body.decode()
        if sum(float(value) for value in re.findall(r"^attache_requests_in_flight\{.*\} (.*)$", text, re.M)) == count:
            break
        await asyncio.sleep(0.05)
    return took


async def cut_answers(check: Check, sidecar: Sidecar) -> None:
    cut, whole, other, began = 0, 0, [], time.monotonic()
    gate = asyncio.Semaphore(16)

    async def one(number: int) -> None:
        nonlocal cut, whole
        async with gate:
            try:
                answer = await asyncio.wait_for(get(sidecar.proxy, f"/cut/{number}"), 20)
                if answer.status == 200:
                    whole += 1
                elif (answer.status, answer.header("content-type")) != (502, "application/problem+json"):
                    other.append(answer.status)
                else:  # the upstream's reset overtook its head: told as what it is
                    cut += 1
            except Broken:
                cut += 1
            except TimeoutError:
                other.append("hangs")

    await asyncio.gather(*[one(number) for number in range(1000)])
    took = time.monotonic() - began
    check.that(took < 20, f"1000 truncated answers took {took:.1f} s: their end shows at once")
    check.that(cut == 1000, f"{cut} of 1000 truncated answers look truncated, {whole} look whole {other[:3] or ''}")


async def cut_uploads(check: Check, sidecar: Sidecar, upstream: Process) -> None:
    async def one(number: int) -> None:
        connection = await Connection.open(sidecar.proxy)
        framing = "transfer-encoding: chunked" if number % 2 else "content-length: 200000"
        head = f"POST /swallow/{number} HTTP/1.1\r\nhost: {connection.host}\r\n{framing}\r\n\r\n"
        connection.writer.write(head.encode() + (b"10000\r\n" if number % 2 else b"") + b"x" * 65536)
        await connection.writer.drain()
        connection.close()

    for start in range(0, 200, 20):
        await asyncio.gather(*[one(number) for number in range(start, start + 20)])
    # This one comes last and comes whole.
    connection = await Connection.open(sidecar.proxy)
    await connection.request("POST", "/swallow/last", {}, b"whole")
    connection.close()
    # Its answer may be here before the line of what the upstream has read.
    await upstream.line("upload last")
    whole = [line for line in upstream.lines if line.endswith(" whole")]
    check.that(whole == ["upload last whole"], f"0 of 200 uploads that were broken off look whole to the upstream {whole[:3]}")


async def events(check: Check, sidecar: Sidecar) -> None:
    connection = await Connection.open(sidecar.proxy)
    connection.writer.write(f"GET /events/30 HTTP/1.1\r\nhost: {connection.host}\r\n\r\n".encode())
    await read_head(connection.reader)
    late = []
    while int(await connection.reader.readuntil(b"\r\n"), 16):
        event = (await connection.reader.readuntil(b"\n\n")).decode()
        late.append(time.time() - float(event.split("data: ")[1]))
        await connection.reader.readexactly(2)
    connection.close()
    check.that(len(late) == 30, f"30 server-sent events, each at most {max(late) * 1000:.0f} ms after it was written")
    check.that(max(late) < 0.1, "none waits for the next")
