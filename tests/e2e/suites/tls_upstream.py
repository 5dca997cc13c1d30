"""nginx behind TLS: the private authority that a route names is believed, and nothing else is."""

import asyncio
import hashlib
import os
import subprocess
from pathlib import Path

from support import tools
from support.fakes import SECRET, FakeProvider, config
from support.http import get
from support.peers import nginx
from support.process import Process, Sidecar
from support.report import Check

# name of the case: (certificate, more of the server block, whether it is believed)
CASES = {
    "good": ("good", "", True),
    "tls12": ("good", "ssl_protocols TLSv1.2;", True),
    "tls13": ("good", "ssl_protocols TLSv1.3;", True),
    "tls11": ("good", 'ssl_protocols TLSv1.1; ssl_ciphers "ALL:@SECLEVEL=0";', False),
    "expired": ("expired", "", False),
    "other-name": ("other-name", "", False),
    "mutual": ("good", "ssl_verify_client on; ssl_client_certificate {folder}/ca.pem;", True),
    "self-signed": ("self-signed", "", False),
    "other-authority": ("other-authority", "", False),
}


def openssl(folder: Path, *arguments) -> None:
    subprocess.run(["openssl", *arguments], cwd=folder, check=True, capture_output=True)


def certificates(folder: Path) -> None:
    """An authority, another that nobody names, and the certificates of the cases."""
    for name in ("ca", "other-ca"):
        openssl(
            folder, "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2",
            "-subj", f"/CN={name}", "-keyout", f"{name}.key", "-out", f"{name}.pem",
            "-addext", "keyUsage=critical,keyCertSign",
        )  # fmt: skip
    for name, signer, host, days in (
        ("good", "ca", "localhost", "2"),
        ("expired", "ca", "localhost", "-1"),
        ("other-name", "ca", "elsewhere.test", "2"),
        ("other-authority", "other-ca", "localhost", "2"),
        ("self-signed", None, "localhost", "2"),
        ("client", "ca", "checkout", "2"),
    ):
        (folder / f"{name}.ext").write_text(f"subjectAltName=DNS:{host}\nbasicConstraints=CA:FALSE\n")
        openssl(
            folder, "req", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes",
            "-subj", f"/CN={host}", "-keyout", f"{name}.key", "-out", f"{name}.csr",
        )  # fmt: skip
        by = ["-CA", f"{signer}.pem", "-CAkey", f"{signer}.key"] if signer else ["-signkey", f"{name}.key"]
        openssl(
            folder, "x509", "-req", "-in", f"{name}.csr", *by, "-set_serial", "1", "-days", days,
            "-extfile", f"{name}.ext", "-out", f"{name}.pem",
        )  # fmt: skip


async def main(check: Check) -> None:
    check.secret("client secret", SECRET)
    folder = check.folder / "pki"
    folder.mkdir()
    certificates(folder)
    provider = await FakeProvider(check).start()
    bulk = await Process(check, "bulk").start("node", tools.PEERS / "bulk.mjs")
    port = (await bulk.line(r"^listening (\d+)")).group(1)
    settings = ""
    for name, (certificate, more, _) in CASES.items():
        tls = f"ssl_certificate {folder}/{certificate}.pem; ssl_certificate_key {folder}/{certificate}.key; {more.format(folder=folder)}"
        forward = "proxy_http_version 1.1; proxy_request_buffering off; proxy_buffering off;"
        web = await nginx(check, f"{tls} location / {{ proxy_pass http://127.0.0.1:{port}; {forward} }}", "ssl")
        route = f'\n[routes.{name}]\npath = "/{name}"\nstrip_prefix = true\nupstream = "https://localhost:{web[1]}"\n'
        own = f', certificate = "{folder}/client.pem", private_key = {{ file = "{folder}/client.key" }}' if name == "mutual" else ""
        settings += f'{route}credential = "main"\ntls = {{ ca_file = "{folder}/ca.pem"{own} }}\n'
        if name == "good":
            settings += route.replace(".good]", ".no-ca]").replace('"/good"', '"/no-ca"') + 'credential = "main"\n'
    head = config(provider.server.url, "http://127.0.0.1:1").split("[routes.main]")[0]
    # The environment's proxy variables lead nowhere: nobody follows them.
    nowhere = {name: "http://127.0.0.1:1" for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "http_proxy", "https_proxy", "all_proxy")}
    sidecar = await Sidecar.run(check, head + settings, {"CLIENT_SECRET": SECRET, **nowhere})
    body = os.urandom(10 << 20)
    expected = f"{len(body)} {hashlib.sha256(body).hexdigest()}".encode()

    for name, believed in [*((name, case[2]) for name, case in CASES.items()), ("no-ca", False)]:
        sent = body if believed else b"x"
        answer = await asyncio.wait_for(get(sidecar.proxy, f"/{name}/up", "POST", {}, sent), 30)
        if believed:
            check.that(answer.body == expected, f"{name}: 10 MiB arrive whole, {answer.status}")
            down = await asyncio.wait_for(get(sidecar.proxy, f"/{name}/down/{10 << 20}"), 30)
            check.that(len(down.body) == 10 << 20, f"{name}: and as many come back")
            slowly = await asyncio.wait_for(get(sidecar.proxy, f"/{name}/up/slowly", "POST", {}, body), 30)
            check.that(slowly.body == expected, f"{name}: whole also when they are taken slowly")
        else:
            own = answer.header("content-type") == "application/problem+json"
            reason = answer.json().get("reason") if own else answer.body[:80]
            check.that(own and answer.status == 502, f"{name}: refused, {answer.status} {reason}")
            check.seen(f"answer to {name}", str(answer))
    check.that(await sidecar.stop() == 0, "exit code 0 after SIGTERM")
