"""Requests flow while somebody abuses what operators use: none fails, none waits; the numbers are printed."""

import contextlib
import http.client
import pathlib
import re
import socket
import subprocess
import sys
import tempfile
import threading
import time

from .live import CONFIG, peers
from .report import check
from .sidecar import get, running

# Seconds of load, with and without abuse.
SPAN = 3
# No request may take longer, on a machine that is busy with the abuser and the measuring too.
LIMIT = 1.0

# A process of its own, so that what it costs is not measured as attaché's. It ends with its standard input.
FLOOD = """
import http.client, sys, threading
address = sys.argv[1]
def flood():
    while True:
        try:
            connection = http.client.HTTPConnection(address, timeout=5)
            for _ in range(50):
                connection.request("GET", "/status"); connection.getresponse().read()
        except OSError:
            pass
for _ in range(4):
    threading.Thread(target=flood, daemon=True).start()
sys.stdin.read()
"""


def load(proxy):
    """Sends requests for a while, one after the other on one connection; their durations, sorted."""
    connection = http.client.HTTPConnection(proxy, timeout=10)
    took, end = [], time.monotonic() + SPAN
    while (begun := time.monotonic()) < end:
        connection.request("GET", "/")
        answer = connection.getresponse()
        answer.read()
        took.append(time.monotonic() - begun)
        assert answer.status == 200, f"a request was answered {answer.status}"
        time.sleep(0.002)
    return sorted(took)


def figures(took):
    p50, p99 = (took[int(len(took) * part)] * 1000 for part in (0.5, 0.99))
    return f"{len(took)} requests, p50 {p50:.1f} ms, p99 {p99:.1f} ms, longest {took[-1] * 1000:.1f} ms"


@contextlib.contextmanager
def nothing(_proxy, _admin, _file):
    yield


@contextlib.contextmanager
def flood(_proxy, admin, _file):
    """Four connections that ask for `/status` as fast as they can."""
    process = subprocess.Popen([sys.executable, "-c", FLOOD, admin], stdin=subprocess.PIPE)
    try:
        yield
    finally:
        process.stdin.close()
        process.wait(10)


@contextlib.contextmanager
def scrapes_never_read(_proxy, admin, _file):
    """A hundred scrapes whose answers are never read."""
    host, port = admin.rsplit(":", 1)
    sockets = []
    try:
        for _ in range(100):
            scraper = socket.socket()
            scraper.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2048)
            scraper.settimeout(10)
            scraper.connect((host, int(port)))
            scraper.sendall(b"GET /metrics HTTP/1.1\r\nhost: localhost\r\n\r\n" * 20)
            sockets.append(scraper)
        yield
    finally:
        for scraper in sockets:
            scraper.close()


@contextlib.contextmanager
def broken_reloads(_proxy, _admin, file):
    """A configuration that changes ten times a second, and is never valid."""
    stop = threading.Event()

    def change():
        number = 0
        while not stop.wait(0.1):
            number += 1
            file.write_text(f"# {number}\n[routes.orders\n")

    good = file.read_text()
    thread = threading.Thread(target=change)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()
        file.write_text(good)


def ready(admin):
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline:
        with contextlib.suppress(OSError):
            if get(f"http://{admin}/readyz")[0] == 200:
                return
        time.sleep(0.05)
    raise AssertionError("not ready")


def lost(admin):
    """How many lines of the log are lost."""
    text = get(f"http://{admin}/metrics")[1]
    return int(re.search(r"^attache_log_lines_lost_total (\d+)", text, re.MULTILINE)[1])


def checks():
    with peers() as port, tempfile.TemporaryDirectory() as folder:
        file = pathlib.Path(folder, "attache.toml")
        file.write_text(CONFIG.format(port=port))
        for name, abuse, log in (
            ("nobody abuses anything", nothing, "read"),
            ("the admin port is flooded", flood, "read"),
            ("100 scrapes are never read", scrapes_never_read, "read"),
            ("the configuration breaks ten times a second", broken_reloads, "read"),
            ("nobody reads the log, a line a request", nothing, "unread"),
            ("the disk under the log is full, a line a request", nothing, "full"),
        ):
            more = {} if log == "read" else {"ATTACHE__PROXY__ACCESS_LOG": "all"}
            with check(f"while {name}, no request fails or waits"):
                with running(file=file, log=log, environment=more) as (proxy, admin):
                    ready(admin)
                    with abuse(proxy, admin, file):
                        took = load(proxy)
                        print(f"        {figures(took)}", flush=True)
                        assert took[-1] < LIMIT, figures(took)
                        if log == "full":
                            assert lost(admin) >= len(took), lost(admin)
                            print(f"        {lost(admin)} lines lost, and counted", flush=True)
                    assert get(f"http://{admin}/livez")[0] == 200
