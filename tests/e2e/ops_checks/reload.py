"""A ConfigMap changes below a running attaché, first to something invalid, then to something good."""

import json
import os
import pathlib
import tempfile
import time

from .report import check
from .sidecar import CONFIG, get, running

# The watcher looks every two seconds, without a signal.
LIMIT = 15


def publish(folder, number, text):
    """As the kubelet does it: a new folder, and a link that is swapped; files are links through it."""
    data = folder / f"..{number}"
    data.mkdir()
    (data / "attache.toml").write_text(text)
    link = folder / "..next"
    link.symlink_to(data.name)
    os.replace(link, folder / "..data")
    if not (folder / "attache.toml").is_symlink():
        (folder / "attache.toml").symlink_to("..data/attache.toml")


def status_until(admin, what, condition):
    deadline = time.monotonic() + LIMIT
    while not condition(status := json.loads(get(f"http://{admin}/status")[1])):
        assert time.monotonic() < deadline, f"{what}, not within {LIMIT} s: {status}"
        time.sleep(0.1)


def checks():
    with check("a ConfigMap's swapped links: an invalid configuration is told and not taken, a good one is in force"):
        with tempfile.TemporaryDirectory() as name:
            folder = pathlib.Path(name)
            publish(folder, 1, CONFIG)
            with running(file=folder / "attache.toml") as (_, admin):
                publish(folder, 2, CONFIG.replace("upstream", "upsteam"))
                status_until(admin, "told", lambda status: status["configuration"].get("rejected"))
                routes = [route["name"] for route in json.loads(get(f"http://{admin}/status")[1])["routes"]]
                assert routes == ["orders"], routes
                metrics = get(f"http://{admin}/metrics")[1]
                assert 'attache_config_reloads_total{outcome="rejected"} 1' in metrics
                publish(folder, 3, CONFIG.replace("[routes.orders]", "[routes.renamed]"))
                status_until(admin, "in force", lambda status: [r["name"] for r in status["routes"]] == ["renamed"])
                assert get(f"http://{admin}/metrics")[1].count('outcome="success"} 1') == 1
                assert not json.loads(get(f"http://{admin}/status")[1])["configuration"].get("rejected")
