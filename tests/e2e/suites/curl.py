"""curl cannot tell: the same command, to the upstream itself and through attaché, has the same outcome."""

import asyncio
import os

from support import tools
from support.fakes import SECRET, FakeProvider, config
from support.http import get
from support.peers import nginx
from support.process import Process, Sidecar
from support.report import Check

# Differ by nature: per connection, or by the time of day.
OWN = {"date", "connection", "keep-alive", "transfer-encoding", "via", "etag", "last-modified"}

ECHO = {
    "GET": ["/plain"],
    "GET with a query": ["/plain?a=b&c=%20d+e&f='g'&h=%C3%A9"],
    "a path with escapes": ["/a%20b/c%2Cd/~e/f:g@h"],
    "HEAD": ["/length", "-I"],
    "HEAD without a length": ["/plain", "-I"],
    "POST": ["/plain", "-d", "a=b&c=d"],
    "POST of JSON": ["/plain", "--json", '{"a": "b"}'],
    "POST of nothing": ["/plain", "-X", "POST"],
    "POST with a length of 0": ["/plain", "-d", ""],
    "POST that expects 100": ["/plain", "--data-binary", "@FILE", "-H", "Expect: 100-continue"],
    "POST, chunked": ["/plain", "--data-binary", "@FILE", "-H", "Transfer-Encoding: chunked", "-H", "Expect:"],
    "PUT of a file": ["/plain", "-T", "FILE"],
    "PATCH": ["/plain", "-X", "PATCH", "-d", "x"],
    "DELETE": ["/plain", "-X", "DELETE"],
    "DELETE with a body": ["/plain", "-X", "DELETE", "-d", "x"],
    "OPTIONS": ["/plain", "-X", "OPTIONS"],
    "a method of its own": ["/plain", "-X", "PROPFIND"],
    "GET with a body": ["/plain", "-X", "GET", "-d", "x"],
    "GET with a chunked body": ["/plain", "-X", "GET", "-d", "x", "-H", "Transfer-Encoding: chunked"],
    "a redirect": ["/redirect"],
    "cookies": ["/cookies", "-b", "a=b; c=d"],
    "gzip": ["/gzip", "--compressed"],
    "gzip as it is": ["/gzip"],
    "trailers": ["/trailers", "-H", "TE: trailers", "-H", "Connection: TE"],
    "early hints": ["/hints"],
    "large headers": ["/large-header/12000", "-H", "X-Large: " + "y" * 12000],
    "the same header twice": ["/plain", "-H", "X-A: 1", "-H", "X-A: 2"],
    "an empty header": ["/plain", "-H", "X-Empty;"],
    "Accept and User-Agent": ["/plain", "-H", "Accept: text/x, */*;q=0.1", "-A", "agent/1"],
    "a closing upstream": ["/close"],
    **{f"status {code}": [f"/status/{code}"] for code in (201, 202, 204, 206, 304, 400, 403, 404, 409, 418, 429, 500, 502, 503)},
}
FILES = {
    "a file": ["/file"],
    "a range": ["/file", "-r", "100-199"],
    "the last bytes": ["/file", "-r", "-50"],
    "an impossible range": ["/file", "-r", "999999999-"],
    "not modified": ["/file", "-z", "FILE"],
    "no such file": ["/nothing"],
    "HEAD of a file": ["/file", "-I"],
    "a file of 16 MB": ["/large"],
    "a folder": ["/folder"],
}

async def curl(address, arguments: list[str], more: list[str], file: str) -> tuple:
    """The exit code, status, headers and body, as curl tells them."""
    target, *rest = [argument.replace("FILE", file) for argument in arguments]
    command = ["curl", "-sS", "-q", "-g", "--path-as-is", "--max-time", "20", "-D", "/dev/stderr", *more, *rest]
    process = await asyncio.create_subprocess_exec(
        *command, f"http://127.0.0.1:{address[1]}{target}",
        stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE, env={"PATH": os.environ["PATH"]},
    )  # fmt: skip
    body, heads = await process.communicate()
    blocks = heads.decode("latin-1").strip().split("\r\n\r\n")
    last = max((at for at, block in enumerate(blocks) if block.startswith("HTTP/")), default=0)
    status, *lines = "\r\n".join(blocks[last:]).split("\r\n")  # what follows the head are trailers
    fields = [(name.lower(), value) for name, _, value in (line.partition(":") for line in lines)]
    kept = sorted(field for field in fields if field[0] not in OWN)
    # With -I, the head is the output.
    return process.returncode, status.split(" ")[1] if " " in status else status, kept, b"" if "-I" in rest else body


async def main(check: Check) -> None:
    check.secret("client secret", SECRET)
    provider = await FakeProvider(check).start()
    echo = await Process(check, "echo").start("node", tools.PEERS / "echo.mjs")
    port = int((await echo.line(r"^listening (\d+)")).group(1))
    site = check.folder / "site"
    (site / "folder").mkdir(parents=True)
    (site / "file").write_bytes(bytes(range(256)) * 40)
    (site / "large").write_bytes(os.urandom(1 << 20) * 16)
    check.folder.chmod(0o755)
    web = await nginx(check, f"root {site}; absolute_redirect off;")
    more = f'\n[routes.files]\nhost = "files.test"\nupstream = "http://127.0.0.1:{web[1]}"\ncredential = "main"\n'
    settings = config(provider.server.url, f"http://127.0.0.1:{port}", more)
    sidecar = await Sidecar.run(check, settings, {"CLIENT_SECRET": SECRET})
    while (await get(sidecar.admin, "/readyz")).status != 200:
        await asyncio.sleep(0.02)
    token = f"Authorization: Bearer {provider.tokens[0]}"

    for kind, cases, upstream, host in (("echo", ECHO, ("", port), None), ("nginx", FILES, web, "files.test")):
        different = []
        for name, arguments in cases.items():
            named = ["-H", f"Host: {host}"] if host else []
            file = str(site / "file")
            direct = await curl(upstream, arguments, ["-H", token, *named], file)
            through = await curl(sidecar.proxy, arguments, named, file)
            if direct != through:
                different.append(name)
                for what, one, other in zip(("exit code", "status", "headers", "body"), direct, through):
                    if one != other:
                        check.note(f"{name}: {what} direct {str(one)[:600]} through attaché {str(other)[:600]}")
        check.that(not different, f"{kind}: {len(different)} of {len(cases)} outcomes differ {different or ''}")
    forged = await curl(sidecar.proxy, ["/plain"], ["-H", "Authorization: Bearer forged", "-H", "authorization: x"], "")
    check.that(b"forged" not in forged[3] and provider.tokens[0].encode() in forged[3], "a caller's own token is replaced")
    check.that(await sidecar.stop() == 0, "exit code 0 after SIGTERM")
