"""A running attaché: nothing behind it, started on free ports, for what only a running one can tell."""

import contextlib
import json
import os
import pathlib
import socket
import subprocess
import tempfile
import threading
import urllib.error
import urllib.request

from .report import Skip, attache

CONFIG = """
[proxy]
listen = "127.0.0.1:0"
[admin]
listen = "127.0.0.1:0"
[credentials.orders]
type = "client_credentials"
token_endpoint = "http://127.0.0.1:9/token"
client_id = "checkout"
client_secret = { env = "OPS_SECRET" }
[routes.orders]
upstream = "http://127.0.0.1:9"
credential = "orders"
"""


@contextlib.contextmanager
def running(text=CONFIG, environment=None, file=None, log="read", lasts=60):
    """Runs attaché with this configuration, or this file; gives the addresses of proxy and admin port.

    `log` is what becomes of its log: "read", "unread" (a pipe that nobody empties) or "full" (a disk without room). It is
    ended after `lasts` seconds, if nothing else does."""
    helps = subprocess.run([attache(), "--help"], capture_output=True, text=True).stdout
    if "\n  run" not in helps:
        raise Skip("this attaché has no `run` yet")
    with tempfile.TemporaryDirectory() as folder:
        config = file or pathlib.Path(folder, "attache.toml")
        if not file:
            config.write_text(text)
        full = None
        if log == "full":
            # Nothing tells its ports, so it gets some that were free a moment ago.
            full = open("/dev/full", "w")
            ports = [free_port(), free_port()]
            environment = {
                **(environment or {}),
                "ATTACHE__PROXY__LISTEN": f"127.0.0.1:{ports[0]}", "ATTACHE__ADMIN__LISTEN": f"127.0.0.1:{ports[1]}",
            }
        process = subprocess.Popen(
            [attache(), "run", "--config", config],
            env={**os.environ, "OPS_SECRET": "a-secret", "ATTACHE__LOG__FORMAT": "json", **(environment or {})},
            stderr=full or subprocess.PIPE, text=True,
        )
        watchdog = threading.Timer(lasts, process.kill)
        watchdog.start()
        try:
            if full:
                full.close()
                yield f"127.0.0.1:{ports[0]}", f"127.0.0.1:{ports[1]}"
                return
            lines = []
            for line in process.stderr:
                lines.append(line)
                with contextlib.suppress(ValueError):
                    event = json.loads(line)
                    if event.get("message") == "listening":
                        break
            else:
                raise AssertionError("attaché did not start:\n" + "".join(lines))
            if log == "read":
                threading.Thread(target=process.stderr.read, daemon=True).start()
            yield event["proxy"], event["admin"]
        finally:
            watchdog.cancel()
            process.terminate()
            try:
                process.wait(20)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def free_port():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]


def get(url):
    """Status and text of an answer, whatever the status."""
    try:
        with urllib.request.urlopen(url, timeout=10) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode()


def scrape():
    """The metrics of a running attaché that has answered one request itself."""
    with running(CONFIG.replace('[routes', 'token_wait = "50ms"\n[routes', 1)) as (proxy, admin):
        get(f"http://{proxy}/")
        status, text = get(f"http://{admin}/metrics")
        assert status == 200, status
        return text
