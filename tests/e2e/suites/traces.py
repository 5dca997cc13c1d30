"""Traces to a real OTLP receiver, over HTTP and over gRPC: parents, attributes, secrets; and a collector that is down or slow.

The receiver reads with the published protobuf definitions (PyPI opentelemetry-proto) and is served by grpcio.
"""

import asyncio
import re
import subprocess
import time

import h2.connection
import h2.events
from support.collector import Collector
from support.fakes import SECRET, FakeProvider, config
from support.http import Connection, Load, Server, get
from support.process import Sidecar, reserve_port
from support.report import Check

TRACE, PARENT = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
SAMPLED, UNSAMPLED = f"00-{TRACE}-{PARENT}-01", f"00-{TRACE}-{PARENT}-00"
COLLECTOR_SECRET = "collector-secret-p0Zr81"
RATE, SPAN = 300, 4  # requests a second, seconds of load


class Upstream:
    """Keeps the fields that it received; 401 to the first token when asked for `/revoked`."""

    def __init__(self):
        self.seen: dict[str, dict] = {}
        self.refused: set[str] = set()
        self.server = Server(self._answer)

    async def _answer(self, request):
        fields = dict(request.headers)
        fields["count"] = sum(key == "traceparent" for key, _ in request.headers)
        self.seen[request.target] = fields
        token = fields.get("authorization", "")
        if request.target == "/revoked" and (not self.refused or token in self.refused):
            self.refused.add(token)
            return 401, {}, b""
        return (500 if request.target == "/broken" else 200), {}, b"ok"


def settings(provider, upstream, traces: str) -> str:
    return config(provider.server.url, upstream.server.url) + f"\n[traces]\n{traces}\n"


async def ready(sidecar: Sidecar) -> None:
    while (await get(sidecar.admin, "/readyz")).status != 200:
        await asyncio.sleep(0.02)


async def counts(sidecar: Sidecar) -> dict[str, int]:
    text = (await get(sidecar.admin, "/metrics")).body.decode()
    return {name: int(value) for name, value in re.findall(r'attache_trace_spans_total\{outcome="(\w+)"\} (\d+)', text)}


async def main(check: Check) -> None:
    check.secret("client secret", SECRET)
    check.secret("the collector's secret", COLLECTOR_SECRET)
    provider = await FakeProvider(check).start()
    upstream = Upstream()
    await upstream.server.start(check)
    await off(check, provider, upstream)
    for protocol in ("http/protobuf", "grpc"):
        await told(check, provider, upstream, protocol)
    await private(check, provider, upstream)
    await ratio(check, provider, upstream)
    await lost(check, provider, upstream)


async def off(check: Check, provider, upstream: Upstream) -> None:
    sidecar = await Sidecar.run(check, settings(provider, upstream, ""), {"CLIENT_SECRET": SECRET}, "off")
    await ready(sidecar)
    await get(sidecar.proxy, "/off", headers={"traceparent": "any-thing", "tracestate": "v=1"})
    fields = upstream.seen["/off"]
    check.that((fields["traceparent"], fields["tracestate"]) == ("any-thing", "v=1"), "off: the fields pass as they came")
    await get(sidecar.proxy, "/off2")
    check.that("traceparent" not in upstream.seen["/off2"], "off: none begins")
    await sidecar.stop()


async def told(check: Check, provider, upstream: Upstream, protocol: str) -> None:
    """Every kind of request, and what the collector learns of it."""
    collector = Collector(protocol).start(check)
    upstream.seen.clear()
    upstream.refused.clear()
    traces = f'endpoint = "{collector.url}"\nprotocol = "{protocol}"\nservice_name = "checkout-sidecar"\n'
    traces += 'headers = { authorization = { env = "COLLECTOR_SECRET" } }'
    env = {"CLIENT_SECRET": SECRET, "COLLECTOR_SECRET": COLLECTOR_SECRET}
    sidecar = await Sidecar.run(check, settings(provider, upstream, traces), env, f"told-{protocol[:4]}")
    await ready(sidecar)
    before = time.time()
    await get(sidecar.proxy, "/child?secret=hunter2hunter2", headers={"traceparent": SAMPLED, "tracestate": "v=1"})
    await get(sidecar.proxy, "/unsampled", headers={"traceparent": UNSAMPLED, "tracestate": "v=1"})
    await get(sidecar.proxy, "/malformed", headers={"traceparent": "00-what-is-this", "tracestate": "v=1"})
    await get(sidecar.proxy, "/root")
    await get(sidecar.proxy, "/broken")
    await get(sidecar.proxy, "/revoked")
    connection = await Connection.open(sidecar.proxy, "foreign.example")
    await connection.request("GET", "/elsewhere")
    connection.close()
    await over_http2(sidecar, "/second", {"traceparent": SAMPLED})
    came = await collector.until("spans", lambda c: len(c.spans) >= 9)
    check.that(came, f"{protocol}: {len(collector.spans)} spans came")
    spans = {span.attributes.get("url.path"): span for span in collector.spans}
    sent = {target.split("?")[0]: fields for target, fields in upstream.seen.items()}

    child = spans["/child"]
    check.that((child.trace, child.parent) == (TRACE, PARENT), f"{protocol}: the span is a child of the caller's")
    field = sent["/child"]["traceparent"]
    check.that(field == f"00-{TRACE}-{child.id}-01", "the upstream is told of our span, in the caller's trace")
    check.that(sent["/child"]["count"] == 1 and sent["/child"]["tracestate"] == "v=1", "once, and with the caller's state")
    wanted = {
        "http.request.method": "GET", "http.response.status_code": 200, "attache.route": "main",
        "server.address": "127.0.0.1", "server.port": upstream.server.address[1], "attache.replayed": False,
    }  # fmt: skip
    check.that(wanted.items() <= child.attributes.items(), f"it shows {child.attributes}")
    check.that((child.name, child.kind, child.error) == ("GET main", 3, False), "a client's span, no error")
    check.that(child.raw.flags == 0x301, f"flags say sampled, and a parent elsewhere: {child.raw.flags:#x}")
    check.that(before - 1 < child.began < time.time() and 0 <= child.seconds < 5, f"it took {child.seconds * 1000:.1f} ms")
    check.that(child.resource.get("service.name") == "checkout-sidecar", "the service has its name")
    check.that("/unsampled" not in spans and sent["/unsampled"]["traceparent"] == UNSAMPLED, "not sampled: passed as it came")
    for path in ("/malformed", "/root"):
        span, fields = spans[path], sent[path]
        good = fields["traceparent"][3:35] == span.trace and fields["traceparent"][36:52] == span.id and not span.parent
        check.that(good and "tracestate" not in fields, f"{path}: a trace begins, without a state")
    check.that(spans["/broken"].error and spans["/broken"].attributes["http.response.status_code"] == 500, "a 500 is an error")
    replayed = spans["/revoked"].attributes
    check.that(replayed["attache.replayed"] and replayed["http.response.status_code"] == 200, "a replay after a 401 is told")
    own = spans["/elsewhere"]
    check.that(own.error and own.attributes["attache.reason"] == "foreign_host", "an answer of attaché's own has its reason")
    tokens = [span for span in collector.spans if "attache.credential" in span.attributes]
    good = [span for span in tokens if span.attributes["attache.credential"] == "main" and not span.error and not span.parent]
    check.that(len(good) >= 2, f"{len(tokens)} token requests have spans of their own")
    given = {headers.get("authorization") for headers in collector.headers}
    check.that(given == {COLLECTOR_SECRET}, "the collector is sent its header")
    text = collector.bytes.decode("latin-1")
    check.that("hunter2" not in text, "no query in any span")
    check.seen(f"spans over {protocol}", text)

    second = spans["/second"]
    told = sent["/second"]["traceparent"] == f"00-{TRACE}-{second.id}-01" and sent["/second"]["count"] == 1
    check.that(second.parent == PARENT and told, "a caller that speaks HTTP/2 gets the same")

    # What was not sent yet is sent at the end.
    await get(sidecar.proxy, "/last")
    check.that(await sidecar.stop() == 0, "exit 0")
    check.that(any(span.attributes.get("url.path") == "/last" for span in collector.spans), "the last span comes before the end")


async def private(check: Check, provider, upstream: Upstream) -> None:
    """Collectors behind TLS with an authority of their own: believed where the configuration names it, and else not."""
    certificate, key = check.folder / "collector.pem", check.folder / "collector.key"
    command = ["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2"]
    command += ["-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost", "-addext", "basicConstraints=critical,CA:FALSE"]
    subprocess.run(["openssl", *command, "-keyout", key, "-out", certificate], check=True, capture_output=True)
    for protocol, named in (("http/protobuf", True), ("grpc", True), ("http/protobuf", False)):
        collector = Collector(protocol, (certificate, key)).start(check)
        traces = f'endpoint = "{collector.url}"\nprotocol = "{protocol}"\ntimeout = "2s"\n'
        traces += f'ca_file = "{certificate}"\n' if named else ""
        sidecar = await Sidecar.run(check, settings(provider, upstream, traces), {"CLIENT_SECRET": SECRET}, "private")
        await ready(sidecar)
        await get(sidecar.proxy, "/private")
        if named:
            came = await collector.until("spans", lambda c: any(s.attributes.get("url.path") == "/private" for s in c.spans))
            check.that(came, f"{protocol} over TLS, with the authority that was named: the span comes")
        else:
            await sidecar.line("the collector does not take spans.*TLS failed")
            check.that(not collector.spans, "an authority that is not named is not believed, and the log says that TLS failed")
        await sidecar.stop()


async def over_http2(sidecar: Sidecar, path: str, headers: dict) -> None:
    """One request with prior knowledge (RFC 9113 section 3.3), and its whole answer."""
    reader, writer = await asyncio.open_connection(*sidecar.proxy)
    connection = h2.connection.H2Connection()
    connection.initiate_connection()
    host = f"{sidecar.proxy[0]}:{sidecar.proxy[1]}"
    names = {":method": "GET", ":scheme": "http", ":authority": host, ":path": path, **headers}
    connection.send_headers(1, list(names.items()), end_stream=True)
    writer.write(connection.data_to_send())
    ended = False
    while not ended:
        events = connection.receive_data(await reader.read(1 << 16))
        ended = any(isinstance(event, h2.events.StreamEnded) for event in events)
        writer.write(connection.data_to_send())
    writer.close()


async def ratio(check: Check, provider, upstream: Upstream) -> None:
    collector = Collector("http/protobuf").start(check)
    traces = f'endpoint = "{collector.url}"\nsample_ratio = 0.25\nquery = true'
    sidecar = await Sidecar.run(check, settings(provider, upstream, traces), {"CLIENT_SECRET": SECRET}, "ratio")
    await ready(sidecar)
    await Load(sidecar.proxy, lambda number: ("GET", f"/{number}?q=1", {}, None, lambda answer: None)).run(500, 1000)
    await sidecar.stop()
    spans = [span for span in collector.spans if "url.path" in span.attributes]
    check.that(150 < len(spans) < 350, f"a sample of 0.25: {len(spans)} spans of 1000 requests")
    check.that(all(span.attributes.get("url.query") == "q=1" for span in spans), "the query stands in each, as asked for")


async def lost(check: Check, provider, upstream: Upstream) -> None:
    """A collector that is down, slow, or refuses: requests do not notice, and what is lost is counted."""
    held, port = reserve_port()
    baseline = None
    for what in ("off", "taking", "down", "slow", "busy"):
        collector = Collector("grpc" if what == "slow" else "http/protobuf").start(check)
        collector.behave = {"slow": "slow", "busy": "busy"}.get(what, "take")
        url = f"http://127.0.0.1:{port}" if what == "down" else collector.url
        traces = "" if what == "off" else f'endpoint = "{url}"\nprotocol = "{collector.protocol}"\ntimeout = "1s"'
        sidecar = await Sidecar.run(check, settings(provider, upstream, traces), {"CLIENT_SECRET": SECRET}, what)
        await ready(sidecar)
        memory = sidecar.memory()
        load = Load(sidecar.proxy, lambda number: ("GET", f"/{number}", {}, None, lambda answer: None))
        outcomes = await load.run(RATE, RATE * SPAN)
        failed = [outcome for outcome in outcomes if outcome.status != 200]
        took = sorted(outcome.ended - outcome.began for outcome in outcomes)
        p50, p99 = (took[int(len(took) * part)] * 1000 for part in (0.5, 0.99))
        baseline = baseline or p50
        grown = (sidecar.memory() - memory) / 1e6
        numbers = await counts(sidecar)
        told = f"{len(failed)} of {len(outcomes)} failed, p50 {p50:.2f} ms, p99 {p99:.2f} ms, {grown:+.1f} MB, spans {numbers}"
        check.that(not failed and p50 < baseline * 2 + 2, f"collector {what}: {told}")
        said = sidecar.text().count("the collector does not take spans")
        check.that(said == (what in ("down", "slow", "busy")), f"the log says so {said} times")
        collector.release()
        began = time.monotonic()
        code = await sidecar.stop()
        took = time.monotonic() - began
        check.that(code == 0 and took < 5, f"it ends {took:.1f} s after SIGTERM, exit {code}")
    held.close()
    # Nobody takes anything, and the queue is full.
    collector = Collector("http/protobuf").start(check)
    collector.behave = "slow"
    sidecar = await Sidecar.run(
        check, settings(provider, upstream, f'endpoint = "{collector.url}"'), {"CLIENT_SECRET": SECRET}, "full"
    )
    await ready(sidecar)
    make = lambda number: ("GET", f"/{number}", {}, None, lambda answer: None)  # noqa: E731
    outcomes = await Load(sidecar.proxy, make).run(1500, 6000)
    numbers = await counts(sidecar)
    failed = [outcome for outcome in outcomes if outcome.status != 200]
    check.that(not failed and numbers["dropped"] > 500, f"a full queue: {len(failed)} of {len(outcomes)} failed, spans {numbers}")
    collector.release()
    await sidecar.stop()
