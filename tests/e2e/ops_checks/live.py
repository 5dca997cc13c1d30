"""The real thing: a real Prometheus scrapes a running attaché; the dashboard has data, and the alerts fire."""

import contextlib
import http.server
import json
import pathlib
import socket
import subprocess
import tempfile
import threading
import time
import urllib.parse

from .prometheus import ALERTS, expressions
from .report import TOOLS, check, tool
from .sidecar import get, running

OPTIONAL = (
    "attache_unsafe_settings", "attache_refresh_token", "attache_token_store", "attache_token_introspections",
    "attache_upstream_tls_reloads", "attache_client_certificate", "attache_upstream_client_certificate",
)  # fmt: skip

CONFIG = """
[proxy]
listen = "127.0.0.1:0"
[admin]
listen = "127.0.0.1:0"
[credentials.orders]
type = "client_credentials"
token_endpoint = "http://127.0.0.1:{port}/token"
client_id = "checkout"
client_secret = {{ env = "OPS_SECRET" }}
token_wait = "50ms"
[credentials.refused]
type = "client_credentials"
token_endpoint = "http://127.0.0.1:{port}/refused"
client_id = "checkout"
client_secret = {{ env = "OPS_SECRET" }}
token_wait = "50ms"
required = false
[routes.orders]
upstream = "http://127.0.0.1:{port}"
credential = "orders"
[routes.refused]
path = "/refused"
upstream = "http://127.0.0.1:{port}"
credential = "refused"
"""


class Peers(http.server.BaseHTTPRequestHandler):
    """A provider that gives short tokens and refuses one client, and an upstream that answers 401 to /revoked."""

    protocol_version = "HTTP/1.1"
    # One write an answer, at once: two small ones would wait for each other's acknowledgement.
    wbufsize = 64 * 1024
    disable_nagle_algorithm = True

    def do_POST(self):
        self.rfile.read(int(self.headers.get("content-length", 0)))
        if self.path == "/refused":
            self.answer(401, {"error": "invalid_client"})
        else:
            self.answer(200, {"access_token": f"token-{time.monotonic_ns()}", "token_type": "Bearer", "expires_in": 8})

    def do_GET(self):
        self.answer(401 if self.path == "/revoked" else 200, {"path": self.path})

    def answer(self, status, content):
        body = json.dumps(content).encode()
        self.send_response(status)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
        self.wfile.flush()

    def log_message(self, *_):
        pass


@contextlib.contextmanager
def peers():
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Peers)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield server.server_address[1]
    finally:
        server.shutdown()


@contextlib.contextmanager
def prometheus(target):
    """Debian's Prometheus, unpacked, with attaché's rules; it watches `target`. Gives its address."""
    program = tool(TOOLS / "prometheus" / "usr" / "bin" / "prometheus")
    with socket.socket() as free:  # it cannot tell a port that it chose itself
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
    with tempfile.TemporaryDirectory() as folder:
        # The alerts at the speed of a test.
        rules = pathlib.Path(folder, "alerts.yaml")
        rules.write_text("\n".join(
            line for line in ALERTS.read_text().splitlines() if not line.strip().startswith("for:")
        ))
        config = pathlib.Path(folder, "prometheus.json")
        config.write_text(json.dumps({
            "global": {"scrape_interval": "1s", "evaluation_interval": "1s"},
            "rule_files": [str(rules)],
            "scrape_configs": [{"job_name": "attache", "static_configs": [{"targets": [target]}]}],
        }))
        log = open(f"{folder}/log", "wb")
        process = subprocess.Popen(
            [program, f"--config.file={config}", f"--storage.tsdb.path={folder}/data",
             f"--web.listen-address={address}"], stdout=log, stderr=log,
        )
        try:
            yield f"http://{address}"
        finally:
            process.terminate()
            process.wait(20)
            log.close()


def query(server, expression):
    status, text = get(f"{server}/api/v1/query?{urllib.parse.urlencode({'query': expression})}")
    answer = json.loads(text)
    assert status == 200 and answer["status"] == "success", f"{expression}: {text}"
    return answer["data"]["result"]


def until(what, condition):
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline, f"still not after a minute: {what}"
        time.sleep(0.2)


def alive(server):
    with contextlib.suppress(OSError, ValueError):
        return len(query(server, "count_over_time(attache_build_info[1m]) > 5")) == 1
    return False


def firing(server):
    return {item["metric"]["alertname"] for item in query(server, 'ALERTS{alertstate="firing"}')}


def empty(server):
    """The dashboard's expressions that have no data."""
    found = []
    for expression in expressions():
        for name in ("job", "instance", "credential", "route"):
            expression = expression.replace(f"${name}", ".*").removesuffix(" > 0")  # panels leave out what is zero
        # Empty when all is well, or without credentials and upstreams of a kind that this configuration has not.
        if not query(server, expression) and not any(name in expression for name in OPTIONAL):
            found.append(expression)
    return found


def checks():
    with check("a real Prometheus: every panel of the dashboard has data, and a refused client fires its alert"):
        with peers() as port, running(CONFIG.format(port=port)) as (proxy, admin), prometheus(admin) as server:
            until("attaché is ready", lambda: get(f"http://{admin}/readyz")[0] == 200)
            stop = threading.Event()

            def load():
                while not stop.wait(0.05):
                    for path in ("/", "/revoked", "/refused"):
                        with contextlib.suppress(OSError):
                            get(f"http://{proxy}{path}")

            caller = threading.Thread(target=load)
            caller.start()
            try:
                until("Prometheus has scraped", lambda: alive(server))
                wanted = {"AttacheClientMisconfigured", "AttacheOwnAnswers", "AttacheTokensRejected", "AttacheNoToken"}
                until(f"firing {wanted}", lambda: wanted <= firing(server))
                unwanted = firing(server) - wanted
                assert not unwanted, f"fire without a cause: {unwanted}"
                left = []

                def full():
                    left[:] = empty(server)
                    return not [each for each in left if "reloads" not in each]

                until("data in every panel", full)
            finally:
                stop.set()
                caller.join()
