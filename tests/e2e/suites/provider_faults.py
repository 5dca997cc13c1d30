"""F5 to F7: a provider that answers nonsense. Each fault has a credential, a token endpoint and steady traffic of its own.

The first token is good for 16 s; the answer to the refresh is the fault; then all is well. Nobody may notice, and nothing
may be sent to where a redirect leads. For F7, every answer has the odd lifetime, and at most one token request a second is made.
"""

import asyncio
import collections
import json
import re
import time

from support.fakes import SECRET
from support.http import Broken, Load, Server, get, read_body, read_head
from support.process import Sidecar
from support.report import Check

SECONDS, RATE, LIFETIME = 19, 10, 16


def plain(status: str, body: bytes, kind: str = "application/json", more: str = "") -> bytes:
    head = f"HTTP/1.1 {status}\r\ncontent-type: {kind}\r\ncontent-length: {len(body)}\r\n{more}\r\n"
    return head.encode() + body


def token(value, **more) -> bytes:
    return plain("200 OK", json.dumps({"access_token": value, "token_type": "Bearer", "expires_in": 10, **more}).encode())


FAULTS = {
    "status-500": plain("500 Internal Server Error", b"oops", "text/plain"),
    "status-503": plain("503 Service Unavailable", b"", "text/plain"),
    "status-429": plain("429 Too Many Requests", b"{}", more="retry-after: 1\r\n"),
    "bad-gateway-page": plain("502 Bad Gateway", b"<html>" + b"x" * 100_000, "text/html"),
    "invalid-client": plain("401 Unauthorized", b'{"error": "invalid_client"}'),
    "invalid-scope": plain("400 Bad Request", b'{"error": "invalid_scope"}'),
    "closed": b"",
    "reset": None,
    "not-http": b"SSH-2.0-OpenSSH_9.2p1\r\n",
    "empty": plain("200 OK", b""),
    "page": plain("200 OK", b"<html>please log in</html>", "text/html"),
    "cut-json": plain("200 OK", b'{"access_token": "abc'),
    "cut-body": b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 500\r\n\r\n{",
    "list": plain("200 OK", b"[]"),
    "no-token": plain("200 OK", b'{"token_type": "Bearer", "expires_in": 10}'),
    "token-is-a-number": token(17),
    "token-is-empty": token(""),
    "token-with-a-line-break": token("abc\r\nx-evil: 1"),
    "token-not-ascii": token("tökén"),
    "token-type-mac": token("abc", token_type="mac"),
    "token-type-missing": plain("200 OK", b'{"access_token": null}'),
    "redirect": plain("307 Temporary Redirect", b"", more="location: http://127.0.0.1:ELSEWHERE/token\r\n"),
    "not-utf-8": plain("200 OK", b'{"access_token": "\xff\xfe"}'),
    "large-head": b"HTTP/1.1 200 OK\r\n" + b"x-large: " + b"y" * (1 << 20) + b"\r\n\r\n",
    "large-token": token("a" * 200_000),
    "endless": "endless",
}
LIFETIMES = {
    "missing": "", "zero": "0", "minus": "-1", "digits": '"3600"', "fraction": "3599.5", "huge": "1e400",
    "beyond": "9223372036854775808", "null": "null", "list": "[]", "text": '"soon"', "object": "{}", "true": "true",
}  # fmt: skip


class Provider:
    """`/fault/NAME` and `/lifetime/NAME` are token endpoints."""

    def __init__(self, check: Check, elsewhere: int):
        self.check, self.elsewhere = check, elsewhere
        self.asked: collections.defaultdict[str, list[float]] = collections.defaultdict(list)
        self.tokens: set[str] = set()

    async def start(self) -> "Provider":
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.check.at_end(self._stop)
        self.url = f"http://127.0.0.1:{self._server.sockets[0].getsockname()[1]}"
        return self

    async def _stop(self) -> None:
        self._server.close()

    def good(self, name: str, lifetime: str) -> bytes:
        value = f"good-token-{name}-{len(self.tokens):06}"
        self.tokens.add(self.check.secret(name, value))
        lifetime = f', "expires_in": {lifetime}' if lifetime else ""
        return plain("200 OK", f'{{"access_token": "{value}", "token_type": "bearer"{lifetime}}}'.encode())

    async def _serve(self, reader, writer) -> None:
        try:
            first, headers = await read_head(reader)
            await read_body(reader, headers, False)
            _, kind, name = first.split(" ")[1].split("/")
            times = self.asked[f"{kind}-{name}"]
            times.append(time.monotonic())
            if kind == "lifetime":
                answer = self.good(name, LIFETIMES[name])
            elif len(times) == 2:
                answer = FAULTS[name]
            else:
                answer = self.good(name, str(LIFETIME))
            if answer is None:
                writer.transport.abort()
            elif answer == "endless":
                writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n{" % (1 << 30))
                while True:
                    writer.write(b" " * 65536)
                    await writer.drain()
            else:
                writer.write(answer.replace(b"ELSEWHERE", str(self.elsewhere).encode()))
                await writer.drain()
        except (Broken, OSError):
            pass
        finally:
            writer.close()


async def main(check: Check) -> None:
    check.secret("client secret", SECRET)
    sent_elsewhere = []

    async def trap(request):
        sent_elsewhere.append(request.target)
        return 200, {"content-type": "application/json"}, b'{"access_token": "evil", "token_type": "Bearer"}'

    elsewhere = await Server(trap).start(check)
    provider = await Provider(check, elsewhere.address[1]).start()
    wrong = []

    async def upstream_answer(request):
        given = [value for key, value in request.headers if key == "authorization"]
        right = len(given) == 1 and given[0].startswith("Bearer ") and given[0][7:] in provider.tokens
        if not right and not given[0].startswith("Bearer a"):  # `large-token` is a token, if an odd one
            wrong.append(given)
        return 200, {}, b"ok"

    upstream = await Server(upstream_answer).start(check)
    names = [("fault", name) for name in FAULTS] + [("lifetime", name) for name in LIFETIMES]
    settings = "".join(
        f"""
[credentials.{kind}-{name}]
type = "client_credentials"
token_endpoint = "{provider.url}/{kind}/{name}"
client_id = "e2e"
client_secret = {{ env = "CLIENT_SECRET" }}
token_wait = "0s"
[routes.{kind}-{name}]
path = "/{kind}/{name}"
upstream = "{upstream.url}"
credential = "{kind}-{name}"
"""
        for kind, name in names
    )
    sidecar = await Sidecar.run(check, settings, {"CLIENT_SECRET": SECRET})
    began = time.monotonic()
    while time.monotonic() - began < 5 and len(provider.asked) < len(names):
        await asyncio.sleep(0.05)
    def load(kind: str, name: str) -> Load:
        def verify(answer):
            return None if answer.status == 200 else answer.json().get("reason")

        return Load(sidecar.proxy, lambda number: ("GET", f"/{kind}/{name}/{number}", {}, None, verify))

    loads = {(kind, name): load(kind, name) for kind, name in names}
    running = asyncio.gather(*[one.run(RATE, RATE * SECONDS) for one in loads.values()])
    await asyncio.sleep(LIFETIME / 2)  # traffic flows, and no refresh is due yet
    before = sidecar.peak()
    await running
    growth = sidecar.peak() - before
    for kind, name in names:
        outcomes = loads[kind, name].outcomes
        failed = [outcome for outcome in outcomes if outcome.status != 200]
        times = provider.asked[f"{kind}-{name}"]
        closest = min((after - before for before, after in zip(times, times[1:])), default=9)
        told = f"{name}: {len(failed)} of {len(outcomes)} failed, {len(times)} token requests, {closest:.2f} s apart at least"
        if kind == "fault":
            check.that(not failed and closest > 0.9 and len(times) >= (2 if name == "large-token" else 3), f"{told} {[(o.status, o.reason) for o in failed[:2]] or ''}")
        else:
            other = [outcome for outcome in failed if outcome.status != 503]
            check.that(not other and closest > 0.9, f"lifetime {told} {other[:2] or ''}")
    check.that(not wrong, f"no request reached the upstream with anything but a good token {wrong[:2] or ''}")
    check.that(not sent_elsewhere, "nothing was sent to where the redirect leads")
    # Each answer is read up to 256 KiB, and all come at once.
    check.that(growth < len(FAULTS) * (256 << 10), f"memory grew by {growth / 1e6:.1f} MB at most, with a GiB of JSON and all of this at once")
    check.that("panicked" not in sidecar.text(), "nothing panicked")
    for path in ("/metrics", "/status"):
        answer = (await get(sidecar.admin, path)).body.decode()
        check.seen(path, answer)
        if path == "/metrics":
            refused = sum(int(n) for n in re.findall(r'attache_token_refreshes_total\{.*outcome="(?!success).*"\} (\d+)', answer))
            check.that(refused >= len(FAULTS) - 1, f"{refused} token requests that failed, by the metrics")
    check.that(await sidecar.stop() == 0, "exit code 0 after SIGTERM")
