"""F10: the address of an upstream's name changes under load. New connections follow within 10 s, old ones within 60 s, and no
request fails; nor when the name has no address any more.

attaché runs in a mount namespace of its own, in which `/etc/hosts` is a file of this suite.
"""

import asyncio
import subprocess
import time

from support.fakes import SECRET, FakeProvider, config
from support.http import Connection, Request, Server, get
from support.process import Sidecar
from support.report import Check, Skip

NAME = "orders.test"
UPGRADE = {"connection": "upgrade", "upgrade": "websocket"}  # such a request gets a connection of its own


async def upstreams(check: Check) -> int:
    """Two servers on one port of two addresses, each of which tells which one it is."""
    port = 0
    for address in ("127.0.0.1", "127.0.0.2"):

        async def answer(_request: Request, address=address):
            return 200, {}, address.encode()

        server = await asyncio.start_server(Server(answer)._serve, address, port)
        port = server.sockets[0].getsockname()[1]
        check.at_end(_close(server))
    return port


def _close(server):
    async def close() -> None:
        server.close()

    return close


async def main(check: Check) -> None:
    check.secret("client secret", SECRET)
    hosts = check.folder / "hosts"
    hosts.write_text(f"127.0.0.1 localhost\n127.0.0.1 {NAME}\n")
    wrap = ["unshare", "--mount", "sh", "-c", 'mount --bind "$0" /etc/hosts && exec "$@"', str(hosts)]
    if subprocess.run([*wrap, "true"], capture_output=True).returncode != 0:
        raise Skip("this user may not make a mount namespace")
    provider = await FakeProvider(check).start()
    port = await upstreams(check)
    sidecar = Sidecar(check, "attache")
    settings = config(provider.server.url, f"http://{NAME}:{port}", "unsafe_plaintext = true\n")
    await sidecar.begin(settings, {"CLIENT_SECRET": SECRET}, wrap)
    await sidecar.listening()

    failed, stop, old = [], asyncio.Event(), []

    async def steady() -> None:
        """A caller whose requests keep one connection to the upstream in use."""
        connection = await Connection.open(sidecar.proxy)
        while not stop.is_set():
            answer = await connection.request("GET", "/")
            old.append((time.monotonic(), answer.body.decode()))
            if answer.status != 200:
                failed.append(answer)
            await asyncio.sleep(0.02)
        connection.close()

    async def fresh() -> str:
        answer = await get(sidecar.proxy, "/", "GET", UPGRADE)
        if answer.status != 200:
            failed.append(answer)
        return answer.body.decode()

    load = asyncio.create_task(steady())
    check.that(await fresh() == "127.0.0.1", "the first address is in use")
    hosts.write_text(f"127.0.0.1 localhost\n127.0.0.2 {NAME}\n")
    changed = time.monotonic()
    while await fresh() != "127.0.0.2" and time.monotonic() - changed < 10:
        await asyncio.sleep(0.05)
    took = time.monotonic() - changed
    check.that(took < 10, f"new connections follow after {took:.1f} s")
    while old[-1][1] != "127.0.0.2" and time.monotonic() - changed < 60:
        await asyncio.sleep(0.1)
    took = time.monotonic() - changed
    check.that(took < 60, f"a connection that is always in use is replaced after {took:.1f} s")

    hosts.write_text("127.0.0.1 localhost\n")
    warned = await asks_until_told(sidecar, fresh)
    check.that(warned and await fresh() == "127.0.0.2", "a name without an address: its last one serves, and the log tells")
    stop.set()
    await load
    check.that(not failed, f"0 of {len(old)} requests failed {failed[:2] or ''}")
    check.that(await sidecar.stop() == 0, "exit code 0 after SIGTERM")


async def asks_until_told(sidecar: Sidecar, ask) -> bool:
    """Asks for new connections until the name has been looked up again."""
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline and "its last addresses are used" not in sidecar.text():
        await ask()
        await asyncio.sleep(0.2)
    return "its last addresses are used" in sidecar.text()
