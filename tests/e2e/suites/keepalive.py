"""F9: an upstream that closes kept-alive connections just when they are used again.

Three ways of closing, each without a word: right after an answer; as soon as the next request's first bytes are there; after the
next request was read whole. What may be sent again (RFC 9110 §9.2.2) has to be answered as if nothing were the matter; a POST
may fail, but never arrive twice.
"""

import asyncio
import collections
import random

from support.fakes import SECRET, FakeProvider, config
from support.http import Broken, Connection, read_body, read_head
from support.process import Sidecar
from support.report import Check

COUNT = 5_000
CALLERS = 16


class Closing:
    """An upstream that closes on reuse, one connection in two, at random."""

    def __init__(self):
        self.arrived: collections.Counter[str] = collections.Counter()
        self.closed: collections.Counter[str] = collections.Counter()

    async def start(self, check: Check) -> int:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        check.at_end(self.stop)
        return self._server.sockets[0].getsockname()[1]

    async def stop(self) -> None:
        self._server.close()

    async def _serve(self, reader, writer) -> None:
        try:
            fresh = True
            while True:
                how = random.choice(["answered", "begun", "read", "", "", ""])
                if how == "begun" and not fresh:
                    await reader.read(1)
                    self.closed[how] += 1
                    return writer.transport.abort() if random.random() < 0.5 else None
                first, headers = await read_head(reader)
                await read_body(reader, headers, False)
                method, target, _ = first.split(" ")
                self.arrived[f"{method} {target}"] += 1
                if how == "read" and not fresh:
                    self.closed[how] += 1
                    return
                body = target.encode()
                writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n%b" % (len(body), body))
                await writer.drain()
                if how == "answered":
                    self.closed[how] += 1
                    return
                fresh = False
        except (Broken, OSError):
            pass
        finally:
            writer.close()


async def main(check: Check) -> None:
    check.secret("client secret", SECRET)
    provider = await FakeProvider(check).start()
    upstream = Closing()
    port = await upstream.start(check)
    sidecar = await Sidecar.run(
        check, config(provider.server.url, f"http://127.0.0.1:{port}"), {"CLIENT_SECRET": SECRET}
    )
    for method in ("GET", "PUT", "DELETE", "POST"):
        answered, failed = 0, collections.Counter()
        numbers = iter(range(COUNT))

        async def caller() -> None:
            nonlocal answered
            connection = await Connection.open(sidecar.proxy)
            for number in numbers:
                target = f"/{method}/{number}"
                body = b"x" * (number % 3000) if method in ("PUT", "POST") else None
                try:
                    answer = await connection.request(method, target, {}, body)
                    if answer.status == 200 and answer.body == target.encode():
                        answered += 1
                    else:
                        failed[f"{answer.status} {answer.body[:120]!r}"] += 1
                except Broken as broken:
                    failed[str(broken)] += 1
                    connection.usable = False
                if not connection.usable:
                    connection.close()
                    connection = await Connection.open(sidecar.proxy)
            connection.close()

        await asyncio.gather(*[caller() for _ in range(CALLERS)])
        of_this = {key: times for key, times in upstream.arrived.items() if key.startswith(f"{method} ")}
        twice = sum(times > 1 for times in of_this.values())
        why = dict(failed.most_common(3)) if failed else ""
        if method == "POST":
            check.that(twice == 0, f"POST: {twice} of {COUNT} arrived twice, {answered} answered {why}")
        else:
            check.that(answered == COUNT, f"{method}: {COUNT - answered} of {COUNT} failed, {twice} sent twice {why}")
    check.note(f"connections closed by the upstream: {dict(upstream.closed)}")
    check.that(await sidecar.stop() == 0, "exit code 0 after SIGTERM")
