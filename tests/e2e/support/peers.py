"""The peers that are real servers: oidc-provider, the verifying upstream, nginx."""

import asyncio
import json
import os
import signal
import subprocess

from . import tools
from .process import Process, reserve_port
from .report import Check


class Provider:
    """oidc-provider on a port that it keeps, so that it can be killed and come back."""

    def __init__(self, check: Check, client_id: str, secret: str, resources: dict[str, int]):
        self.check = check
        made = subprocess.run(["node", tools.PEERS / "key.mjs", "ES256"], check=True, capture_output=True, text=True).stdout
        key = json.loads(made)["ES256"]["private"]
        self._held, self.port = reserve_port()
        self._given = {
            "port": self.port, "id": client_id, "secret": secret, "jwk": key, "resources": resources
        }
        self.issuer = f"http://127.0.0.1:{self.port}"
        self._lives: list[Process] = []

    async def start(self) -> "Provider":
        life = await Process(self.check, "provider").start(
            "node", "--no-warnings", tools.PEERS / "provider.mjs", json.dumps(self._given)
        )
        self._lives.append(life)
        await life.line(r"^listening")
        return self

    async def kill(self) -> None:
        self._lives[-1].signal(signal.SIGKILL)
        await self._lives[-1].ended()

    def events(self) -> list[dict]:
        """What it did, in all its lives, oldest first."""
        return [json.loads(line) for life in self._lives for line in life.lines if line.startswith("{")]

    def token_requests(self) -> list[dict]:
        return [event for event in self.events() if "received" in event]


async def verifying_upstream(check: Check, issuer: str) -> tuple[str, int]:
    upstream = await Process(check, "upstream").start("node", "--no-warnings", tools.PEERS / "upstream.mjs", issuer)
    port = int((await upstream.line(r"^listening (\d+)")).group(1))
    return "127.0.0.1", port


async def nginx(check: Check, server: str, listen: str = "") -> tuple[str, int]:
    """nginx from Debian with the given `server` block's content, on a port of its own."""
    root = tools.debian("nginx-light")
    held, port = reserve_port()
    folder = check.folder / f"nginx-{port}"
    folder.mkdir()
    (folder / "nginx.conf").write_text(f"""
daemon off;
worker_processes 1;
pid {folder}/pid;
error_log stderr warn;
{"user root;" if os.geteuid() == 0 else ""}
events {{ worker_connections 4096; }}
http {{
    access_log off;
    client_body_temp_path {folder}/body;
    proxy_temp_path {folder}/proxy;
    fastcgi_temp_path {folder}/fastcgi;
    uwsgi_temp_path {folder}/uwsgi;
    scgi_temp_path {folder}/scgi;
    client_max_body_size 0;
    keepalive_requests 1000000;
    server {{
        listen 127.0.0.1:{port} backlog=4096 {listen};
        {server}
    }}
}}
""")
    process = await Process(check, "nginx").start(
        root / "usr/sbin/nginx", "-p", folder, "-c", folder / "nginx.conf", "-e", "stderr", env=tools.environment(root)
    )
    check.at_end(_close(held))
    for _ in range(200):  # nginx does not say when it listens
        try:
            _, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.close()
            return "127.0.0.1", port
        except OSError:
            await asyncio.sleep(0.02)
    raise RuntimeError(f"nginx does not listen: {process.text()}")


def _close(held):
    async def close():
        held.close()

    return close

