"""HTTP/2 on either side: curl with prior knowledge in, nginx behind TLS out; large bodies in flat memory; what breaks off."""

import asyncio
import hashlib
import os
import time

from support import tools
from support.fakes import SECRET, FakeProvider, config
from support.http import Broken, Connection, get, read_head
from support.peers import nginx
from support.process import Process, Sidecar
from support.report import Check

from .curl import ECHO, curl
from .tls_upstream import certificates

GIB = 1 << 30
BLOCK = b"attache " * 8192
GROWTH = 32 << 20  # what 1 GiB may cost in memory
PRIOR = ["--http2-prior-knowledge"]
# Only HTTP/1.1 has these.
NOT_HTTP_2 = {"POST, chunked", "GET with a chunked body", "early hints"}


async def main(check: Check) -> None:
    check.secret("client secret", SECRET)
    folder = check.folder / "pki"
    folder.mkdir()
    certificates(folder)
    provider = await FakeProvider(check).start()
    echo = await Process(check, "echo").start("node", tools.PEERS / "echo.mjs")
    echo_port = int((await echo.line(r"^listening (\d+)")).group(1))
    bulk = await Process(check, "bulk").start("node", tools.PEERS / "bulk.mjs")
    bulk_port = int((await bulk.line(r"^listening (\d+)")).group(1))
    tls = f"ssl_certificate {folder}/good.pem; ssl_certificate_key {folder}/good.key;"
    forward = "proxy_http_version 1.1; proxy_request_buffering off; proxy_buffering off; proxy_set_header Via $http_via;"
    places = f"keepalive_requests 1000; location / {{ proxy_pass http://127.0.0.1:{bulk_port}; {forward} }} location /who {{ return 200 $server_protocol; }}"
    web = await nginx(check, f"{tls} {places}", "ssl http2")
    route = f'tls = {{ ca_file = "{folder}/ca.pem" }}\nupstream = "https://localhost:{web[1]}"\ncredential = "main"\n'
    more = f'\n[routes.nginx]\npath = "/nginx"\nstrip_prefix = true\n{route}'
    more += f'\n[routes.old]\npath = "/old"\nstrip_prefix = true\nprotocol = "http1"\n{route}'
    settings = config(provider.server.url, f"http://127.0.0.1:{echo_port}", more)
    sidecar = await Sidecar.run(check, settings, {"CLIENT_SECRET": SECRET})
    while (await get(sidecar.admin, "/readyz")).status != 200:
        await asyncio.sleep(0.02)

    # The same command by HTTP/1.1 to the upstream itself, and by HTTP/2 through attaché.
    file = check.folder / "file"
    file.write_bytes(bytes(range(256)) * 40)
    token = f"Authorization: Bearer {provider.tokens[0]}"
    different = []
    cases = {name: arguments for name, arguments in ECHO.items() if name not in NOT_HTTP_2}
    for name, arguments in cases.items():
        direct = await curl(("", echo_port), arguments, ["-H", token], str(file))
        through = await curl(sidecar.proxy, arguments, PRIOR, str(file))
        if direct != through:
            different.append(name)
            for what, one, other in zip(("exit code", "status", "headers", "body"), direct, through):
                if one != other:
                    check.note(f"{name}: {what} direct {str(one)[:400]} through attaché {str(other)[:400]}")
    check.that(not different, f"curl over HTTP/2: {len(different)} of {len(cases)} outcomes differ {different or ''}")

    for path, spoken in (("/nginx/who", b"HTTP/2.0"), ("/old/who", b"HTTP/1.1")):
        answer = await get(sidecar.proxy, path)
        check.that(answer.body == spoken, f"{path}: nginx is spoken to by {answer.body.decode()}")

    expected = hashlib.sha256()
    for _ in range(GIB // len(BLOCK)):
        expected.update(BLOCK)
    await get(sidecar.proxy, f"/nginx/down/{1 << 20}")
    before = sidecar.memory()
    for way, options in (("HTTP/1.1", []), ("HTTP/2", PRIOR)):
        size, digest, rate = await fetch(sidecar.proxy, f"/nginx/down/{GIB}", options)
        good = (size, digest) == (GIB, expected.hexdigest())
        check.that(good, f"1 GiB down, {way} in, HTTP/2 out: {size} bytes whole, {rate:.0f} MB/s")
        told, rate = await send(sidecar.proxy, "/nginx/up", options)
        check.that(told == f"{GIB} {expected.hexdigest()}", f"1 GiB up, {way} in, HTTP/2 out: whole, {rate:.0f} MB/s")
    growth = sidecar.peak() - before
    check.that(growth <= GROWTH, f"memory grew by {growth / 1e6:.1f} MB at most, from {before / 1e6:.1f} MB")

    await slow_readers(check, sidecar)
    await cut_answers(check, sidecar)
    await restarts(check, sidecar)
    check.that(await sidecar.stop() == 0, "exit code 0 after SIGTERM")


async def fetch(address, target: str, options: list[str]) -> tuple[int, str, float]:
    began = time.monotonic()
    process = await asyncio.create_subprocess_exec(
        "curl", "-sS", "-q", "--max-time", "120", *options, f"http://127.0.0.1:{address[1]}{target}",
        stdout=asyncio.subprocess.PIPE, env={"PATH": os.environ["PATH"]}, limit=1 << 20,
    )  # fmt: skip
    size, digest = 0, hashlib.sha256()
    while part := await process.stdout.read(1 << 18):
        size += len(part)
        digest.update(part)
    await process.wait()
    return size, digest.hexdigest(), size / (time.monotonic() - began) / 1e6


async def send(address, target: str, options: list[str]) -> tuple[str, float]:
    began = time.monotonic()
    process = await asyncio.create_subprocess_exec(
        "curl", "-sS", "-q", "--max-time", "120", "-X", "POST", "-T", "-", "-H", "Expect:", *options,
        f"http://127.0.0.1:{address[1]}{target}",
        stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, env={"PATH": os.environ["PATH"]},
    )  # fmt: skip
    for _ in range(GIB // len(BLOCK)):
        process.stdin.write(BLOCK)
        await process.stdin.drain()
    process.stdin.close()
    told = await process.stdout.read()
    await process.wait()
    return told.decode(), GIB / (time.monotonic() - began) / 1e6


async def slow_readers(check: Check, sidecar: Sidecar) -> None:
    """F23 over one HTTP/2 connection a worker: 50 callers that do not read, and everybody else goes on."""
    before = sidecar.memory()
    connections = [await Connection.open(sidecar.proxy) for _ in range(50)]
    for connection in connections:
        connection.writer.transport.pause_reading()
        connection.writer.write(f"GET /nginx/down/{GIB} HTTP/1.1\r\nhost: {connection.host}\r\n\r\n".encode())
    sizes = []
    for _ in range(20):
        sizes.append(len((await asyncio.wait_for(get(sidecar.proxy, f"/nginx/down/{4 << 20}"), 20)).body))
    growth = sidecar.memory() - before
    check.that(sizes == [4 << 20] * 20, "while 50 callers do not read, others on the same connections are served")
    check.that(growth <= 64 << 20, f"50 callers that do not read their GiB: memory grew by {growth / 1e6:.1f} MB")
    for connection in connections:
        connection.writer.transport.abort()


async def cut_answers(check: Check, sidecar: Sidecar) -> None:
    """F8: an upstream that breaks off behind HTTP/2 looks broken off, to callers of either kind."""
    cut = 0
    for number in range(100):
        try:
            connection = await Connection.open(sidecar.proxy)
            connection.writer.write(f"GET /nginx/cut/{number} HTTP/1.1\r\nhost: {connection.host}\r\n\r\n".encode())
            _, headers = await read_head(connection.reader)
            rest = await connection.reader.read()
            length = dict(headers).get("content-length")
            cut += not rest.endswith(b"0\r\n\r\n") if length is None else len(rest) < int(length)
        except Broken:
            cut += 1
        finally:
            connection.close()
    check.that(cut == 100, f"HTTP/1.1 in, HTTP/2 out: {cut} of 100 truncated answers look truncated")
    codes = []
    for number in range(50):
        process = await asyncio.create_subprocess_exec(
            "curl", "-sS", "-q", "--max-time", "20", *PRIOR, f"http://127.0.0.1:{sidecar.proxy[1]}/nginx/cut/{number}",
            stdout=asyncio.subprocess.DEVNULL, stderr=asyncio.subprocess.DEVNULL, env={"PATH": os.environ["PATH"]},
        )  # fmt: skip
        codes.append(await process.wait())
    check.that(all(codes), f"HTTP/2 in and out: curl tells an error for {sum(map(bool, codes))} of 50")


async def restarts(check: Check, sidecar: Sidecar) -> None:
    """nginx ends a connection with GOAWAY after so many requests: nobody notices, whatever the method."""
    good = 0
    for number in range(3000):
        method, body = (("GET", None), ("POST", b"x" * 100))[number % 2]
        target = "/nginx/who" if method == "GET" else "/nginx/up"
        answer = await asyncio.wait_for(get(sidecar.proxy, target, method, {}, body), 20)
        good += answer.status == 200
    check.that(good == 3000, f"{good} of 3,000 requests good while nginx ends each connection after 1,000")
