"""An OTLP collector on the published protocol: HTTP by Python's own server, gRPC by grpcio. It keeps every span it is sent."""

import asyncio
import ssl
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import grpc
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2, trace_service_pb2_grpc


class Span:
    """A span as a test reads it."""

    def __init__(self, span, resource):
        self.raw = span
        self.resource = resource
        self.name, self.kind = span.name, span.kind
        self.trace, self.id, self.parent = span.trace_id.hex(), span.span_id.hex(), span.parent_span_id.hex()
        self.attributes = _attributes(span.attributes)
        self.error = span.status.code == 2
        self.seconds = (span.end_time_unix_nano - span.start_time_unix_nano) / 1e9
        self.began = span.start_time_unix_nano / 1e9


def _attributes(pairs) -> dict:
    return {pair.key: getattr(pair.value, pair.value.WhichOneof("value")) for pair in pairs}


class Collector:
    """`protocol` is "grpc" or "http/protobuf". Answers as `behave` says: "take", "slow", "busy" (503, UNAVAILABLE), "refuse"."""

    def __init__(self, protocol: str, tls: tuple[Path, Path] | None = None):
        """`tls` is a certificate for localhost and its key."""
        self.protocol, self.behave, self.tls = protocol, "take", tls
        self.spans: list[Span] = []
        self.bytes = b""
        self.headers: list[dict] = []
        self.calls = 0
        self._held = threading.Event()
        self._news = threading.Condition()

    def _take(self, raw: bytes, headers: dict) -> int:
        """Reads a request; the gRPC status to answer with."""
        behave = self.behave
        with self._news:
            self.calls += 1
            self.headers.append(headers)
            self._news.notify_all()
        if behave == "slow":
            self._held.wait(60)
            return 14
        if behave != "take":
            return 14 if behave == "busy" else 3
        request = trace_service_pb2.ExportTraceServiceRequest.FromString(raw)
        with self._news:
            self.bytes += raw
            for part in request.resource_spans:
                resource = _attributes(part.resource.attributes)
                self.spans += [Span(span, resource) for scope in part.scope_spans for span in scope.spans]
            self._news.notify_all()
        return 0

    def start(self, check) -> "Collector":
        self.port = self._start_grpc() if self.protocol == "grpc" else self._start_http()
        check.at_end(self._close)
        return self

    @property
    def url(self) -> str:
        return f"https://localhost:{self.port}" if self.tls else f"http://127.0.0.1:{self.port}"

    def _start_grpc(self) -> int:
        collector = self

        class Servicer(trace_service_pb2_grpc.TraceServiceServicer):
            def Export(self, request, context):
                code = collector._take(request.SerializeToString(), dict(context.invocation_metadata()))
                if code:
                    context.abort(grpc.StatusCode.UNAVAILABLE if code == 14 else grpc.StatusCode.INVALID_ARGUMENT, "no")
                return trace_service_pb2.ExportTraceServiceResponse()

        self._server = grpc.server(ThreadPoolExecutor(4))
        trace_service_pb2_grpc.add_TraceServiceServicer_to_server(Servicer(), self._server)
        if self.tls:
            certificate, key = (file.read_bytes() for file in self.tls)
            port = self._server.add_secure_port("localhost:0", grpc.ssl_server_credentials([(key, certificate)]))
        else:
            port = self._server.add_insecure_port("127.0.0.1:0")
        self._server.start()
        self._end = lambda: self._server.stop(0)
        return port

    def _start_http(self) -> int:
        collector = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self):
                raw = self.rfile.read(int(self.headers["content-length"]))
                right = self.path == "/v1/traces" and self.headers["content-type"] == "application/x-protobuf"
                code = collector._take(raw, {key.lower(): value for key, value in self.headers.items()}) if right else 3
                self.send_response({0: 200, 14: 503, 3: 400}[code])
                self.send_header("content-length", "0")
                self.end_headers()

            def log_message(self, *_):
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        if self.tls:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(*self.tls)
            self._server.socket = context.wrap_socket(self._server.socket, server_side=True)
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        self._end = self._server.shutdown
        return self._server.server_address[1]

    async def _close(self) -> None:
        self._held.set()
        await asyncio.to_thread(self._end)

    def release(self) -> None:
        """Lets go of what "slow" holds."""
        self._held.set()

    async def until(self, what: str, condition, timeout: float = 15) -> bool:
        """Waits for news until `condition(self)` holds."""

        def wait() -> bool:
            end = time.monotonic() + timeout
            with self._news:
                while not condition(self):
                    if not self._news.wait(end - time.monotonic()) and time.monotonic() >= end:
                        return False
            return True

        return await asyncio.to_thread(wait)
