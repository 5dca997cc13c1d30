"""attaché restarts under load while a supervisor holds its port: no request fails."""

import http.client
import os
import pathlib
import socket
import subprocess
import tempfile
import threading

from .live import CONFIG, peers
from .report import attache, check

RESTARTS = 3


def start(port, config):
    """Starts attaché as systemd does: the port as descriptor 3, told in the environment."""
    script = f'exec 3<&{port.fileno()}; LISTEN_PID=$$ LISTEN_FDS=1 exec "$0" run --config "$1"'
    environment = {**os.environ, "OPS_SECRET": "a-secret", "ATTACHE__LOG__FORMAT": "json"}
    return subprocess.Popen(
        ["/bin/sh", "-c", script, attache(), str(config)], pass_fds=[port.fileno()], env=environment,
        stderr=subprocess.DEVNULL,
    )


class Caller(threading.Thread):
    """Sends requests, each on a connection of its own, until told to stop."""

    def __init__(self, address):
        super().__init__()
        self.address, self.stop, self.good, self.bad = address, threading.Event(), 0, []

    def run(self):
        while not self.stop.wait(0.005):
            try:
                connection = http.client.HTTPConnection(self.address, timeout=20)
                connection.request("GET", "/")
                answer = connection.getresponse()
                answer.read()
                connection.close()
                if answer.status == 200:
                    self.good += 1
                else:
                    self.bad.append(answer.status)
            except OSError as error:
                self.bad.append(repr(error))


def checks():
    with check(f"{RESTARTS} restarts under load with the port held by a supervisor: no request fails"):
        with peers() as upstream, socket.create_server(("127.0.0.1", 0), backlog=4096) as port, \
                tempfile.TemporaryDirectory() as folder:
            address = f"127.0.0.1:{port.getsockname()[1]}"
            config = pathlib.Path(folder, "attache.toml")
            text = CONFIG.format(port=upstream).replace('token_wait = "50ms"', 'token_wait = "5s"')
            config.write_text(text.replace("127.0.0.1:0", address, 1))
            process = start(port, config)
            caller = Caller(address)
            caller.start()
            try:
                for _ in range(RESTARTS):
                    before = caller.good
                    while caller.good < before + 50 and not caller.bad:
                        caller.join(0.02)
                    process.terminate()
                    assert process.wait(40) == 0
                    process = start(port, config)
                before = caller.good
                while caller.good < before + 50 and not caller.bad:
                    caller.join(0.02)
            finally:
                caller.stop.set()
                caller.join()
                process.terminate()
                process.wait(40)
            print(f"        {caller.good} requests over {RESTARTS} restarts, {len(caller.bad)} failed", flush=True)
            assert not caller.bad, caller.bad
