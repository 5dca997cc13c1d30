"""Through a real HTTP proxy (Debian's tinyproxy) to a real TLS server (nginx): bodies both ways, a proxy that wants a password, one
that forbids, one that goes away and comes back."""

import asyncio
import hashlib
import os
import signal

from support import tools
from support.fakes import SECRET, FakeProvider, config
from support.http import get
from support.peers import nginx
from support.process import Process, Sidecar, reserve_port
from support.report import Check

from suites.tls_upstream import certificates

PASSWORD = "proxy-password-7Qx"


async def tinyproxy(check: Check, port: int, more: str) -> Process:
    root = tools.debian("tinyproxy-bin")
    path = check.folder / f"tinyproxy-{port}.conf"
    path.write_text(f"Port {port}\nListen 127.0.0.1\nTimeout 60\nLogLevel Connect\nMaxClients 50\nDisableViaHeader Yes\n{more}\n")
    process = await Process(check, "tinyproxy").start(root / "usr/bin/tinyproxy", "-d", "-c", path, env=tools.environment(root))
    for _ in range(200):  # it says what it does to its log, buffered
        try:
            _, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.close()
            return process
        except OSError:
            await asyncio.sleep(0.02)
    raise RuntimeError(f"tinyproxy does not listen: {process.text()}")


async def main(check: Check) -> None:
    check.secret("client secret", SECRET)
    check.secret("proxy password", PASSWORD)
    tools.debian("tinyproxy-bin")
    pki = check.folder / "pki"
    pki.mkdir()
    certificates(pki)
    provider = await FakeProvider(check).start()
    bulk = await Process(check, "bulk").start("node", tools.PEERS / "bulk.mjs")
    back = (await bulk.line(r"^listening (\d+)")).group(1)
    forward = "proxy_http_version 1.1; proxy_request_buffering off; proxy_buffering off;"
    tls = f"ssl_certificate {pki}/good.pem; ssl_certificate_key {pki}/good.key;"
    _, web = await nginx(check, f"{tls} location / {{ proxy_pass http://127.0.0.1:{back}; {forward} }}", "ssl")

    password = check.folder / "password"
    password.write_text(PASSWORD)
    password.chmod(0o600)
    held, ports = [], {}
    for name in ("plain", "locked", "strict"):
        socket, ports[name] = reserve_port()
        held.append(socket)
    plain = await tinyproxy(check, ports["plain"], "")
    await tinyproxy(check, ports["locked"], f"BasicAuth checkout {PASSWORD}")
    await tinyproxy(check, ports["strict"], "ConnectPort 1")
    routes = ""
    for name, port, auth in (
        ("plain", ports["plain"], ""),
        ("locked", ports["locked"], f'http_proxy_auth = {{ username = "checkout", password = {{ file = "{password}" }} }}\n'),
        ("unnamed", ports["locked"], ""),
        ("strict", ports["strict"], ""),
    ):
        routes += f'\n[routes.{name}]\npath = "/{name}"\nstrip_prefix = true\nupstream = "https://localhost:{web}"\n'
        routes += f'credential = "main"\nhttp_proxy = "http://127.0.0.1:{port}"\n{auth}tls = {{ ca_file = "{pki}/ca.pem" }}\n'
    head = config(provider.server.url, "http://127.0.0.1:1").split("[routes.main]")[0]
    sidecar = await Sidecar.run(check, head + routes, {"CLIENT_SECRET": SECRET})

    body = os.urandom(10 << 20)
    expected = f"{len(body)} {hashlib.sha256(body).hexdigest()}".encode()
    for name in ("plain", "locked"):
        answer = await asyncio.wait_for(get(sidecar.proxy, f"/{name}/up", "POST", {}, body), 30)
        check.that(answer.body == expected, f"{name}: 10 MiB arrive whole, {answer.status}")
        down = await asyncio.wait_for(get(sidecar.proxy, f"/{name}/down/{10 << 20}"), 30)
        check.that(len(down.body) == 10 << 20, f"{name}: and as many come back")
    for name, reason in (("unnamed", "proxy_authentication"), ("strict", "proxy_refused")):
        answer = await get(sidecar.proxy, f"/{name}/down/1")
        check.that((answer.status, answer.json()["reason"]) == (502, reason), f"{name}: 502 {reason}")
        check.seen(f"answer to {name}", str(answer))

    plain.signal(signal.SIGKILL)
    await plain.ended()
    answer = await get(sidecar.proxy, "/plain/down/1")
    check.that((answer.status, answer.json()["reason"]) == (502, "proxy_unreachable"), "gone: 502 proxy_unreachable")
    await tinyproxy(check, ports["plain"], "")
    answer = await get(sidecar.proxy, "/plain/down/1")
    check.that(answer.status == 200, "back: served at once")
    check.that(await sidecar.stop() == 0, "exit code 0 after SIGTERM")
    for socket in held:
        socket.close()
