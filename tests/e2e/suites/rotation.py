"""Rotation of refresh tokens: killed 200 times at random (F14), and on a disk that is full or read-only (F15).

F14: the provider spends a refresh token when it answers, and ends the family when a spent one comes again. So a kill between its
answer and our sync loses the chain, and nothing else may: what the provider gave last and what stands in the store are compared
after every kill. The window is measured at the runs that lived: from the provider's commit until attaché says that the token
is in use.
"""

import asyncio
import json
import os
import random
import signal
import subprocess
import time
from datetime import datetime
from pathlib import Path

from support.fakes import FakeUpstream
from support.http import Load, get
from support.process import Sidecar
from support.report import Check, Skip
from support.rotation import RotatingProvider

KILLS = 200
SEED = 20261125


def config(provider: str, folder: Path, store: Path, upstream: str) -> str:
    return f"""
[proxy]
listen = "127.0.0.1:0"
workers = 1
[admin]
listen = "127.0.0.1:0"
[log]
format = "json"
[credentials.main]
type = "refresh_token"
token_endpoint = "{provider}/token"
client_id = "e2e"
client_auth = "none"
refresh_token = {{ file = "{folder}/initial" }}
store = "{store}"
[routes.main]
upstream = "{upstream}"
credential = "main"
"""


def secret_file(path: Path, text: str) -> None:
    beside = path.with_suffix(".tmp")
    beside.write_text(text)
    beside.chmod(0o600)
    beside.rename(path)


async def main(check: Check) -> None:
    await killed(check)
    await full(check)


async def killed(check: Check) -> None:
    provider = await RotatingProvider(check, lifetime=2).start()
    folder = check.folder
    store = folder / "store"
    secret_file(folder / "initial", provider.current)
    path = folder / "rotation.toml"
    path.write_text(config(provider.server.url, folder, store, "http://127.0.0.1:9"))
    chance = random.Random(SEED)
    lost = wrong = torn = unfinished = 0
    windows: list[float] = []
    said: list[str] = []
    began = time.monotonic()
    for number in range(KILLS):
        commits = len(provider.commits)
        committed = asyncio.Event()
        provider.on_commit = committed.set
        process = await asyncio.create_subprocess_exec(
            check.attache, "run", "--config", path, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, env={"PATH": os.environ["PATH"]}
        )
        # Half of the kills fall anywhere in its first moments, half of them close to the rotation.
        if number % 2:
            await asyncio.sleep(chance.uniform(0, 0.06))
        else:
            try:
                await asyncio.wait_for(committed.wait(), 10)
            except TimeoutError:
                check.that(False, "a token request came within 10 s of the start")
            await asyncio.sleep(chance.uniform(0, 0.012))
        process.send_signal(signal.SIGKILL)
        text = (await process.communicate())[1].decode()
        at = time.time()
        said.append(text)
        if len(provider.commits) > commits + 1:
            check.note(f"life {number} rotated more than once")
        stored = None
        if store.exists():
            try:
                stored = json.loads(store.read_text())["refresh"]["token"]
            except (ValueError, KeyError):
                torn += 1
        in_use = [line for line in text.splitlines() if "token refreshed" in line]
        if in_use and len(provider.commits) == commits + 1:
            when = datetime.fromisoformat(json.loads(in_use[0])["timestamp"].replace("Z", "+00:00")).timestamp()
            windows.append(when - provider.commits[-1][1])
        if len(provider.commits) == commits or stored == provider.current:
            continue
        # The provider has committed, and the store does not know: the kill must have fallen in between.
        unfinished += 1
        if in_use:
            wrong += 1
        check.note(f"kill {number} fell into the window, {(at - provider.commits[-1][1]) * 1000:.1f} ms after the commit")
        # What follows shows the loss: the spent token comes again. Then somebody signs in again.
        lost += 1
        secret_file(folder / "initial", provider.begin())
    took = time.monotonic() - began
    provider.on_commit = None
    check.seen("output of 200 killed processes", "\n".join(said))
    check.that(len(provider.commits) >= KILLS / 2, f"{KILLS} kills in {took:.0f} s, {len(provider.commits)} rotations")
    check.that(torn == 0, f"{torn} stores that were not whole")
    check.that(wrong == 0, f"{wrong} times the access token was in use before its refresh token was on the disk")
    check.that(
        not provider.reused and provider.refused == 0,
        f"{lost} chains lost, all between the commit and the sync; {len(provider.reused)} spent tokens came again otherwise",
    )
    windows.sort()
    p50, p99 = (windows[min(len(windows) - 1, int(len(windows) * q))] for q in (0.5, 0.99))
    check.that(
        len(windows) >= 30 and p99 <= 0.020,
        f"window from commit to use: p50 {p50 * 1000:.1f} ms, p99 {p99 * 1000:.1f} ms of {len(windows)} (at most 20 ms)",
    )
    # After all of this it simply works.
    sidecar = await Sidecar.run(check, path.read_text(), name="after")
    await ready(sidecar)
    check.that(await sidecar.stop() == 0, "the process after the last kill goes on with the chain")
    check.that(not provider.reused, "and presented no spent token")


async def ready(sidecar: Sidecar) -> None:
    async def until():
        while (await get(sidecar.admin, "/readyz")).status != 200:
            await asyncio.sleep(0.02)

    await asyncio.wait_for(until(), 15)


class Disk:
    """A small file system of its own."""

    def __init__(self, check: Check):
        self.path = check.folder / "disk"
        self.path.mkdir()
        mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k,mode=700", "tmpfs", self.path], capture_output=True, text=True)
        if mounted.returncode != 0:
            raise Skip(f"no file system can be mounted here: {mounted.stderr.strip()}")
        check.at_end(self.unmount)

    async def unmount(self) -> None:
        subprocess.run(["umount", "-l", self.path], capture_output=True)

    def fill(self) -> None:
        try:
            with open(self.path / "filler", "wb", buffering=0) as file:
                while True:
                    file.write(b"x" * 4096)
        except OSError:
            pass

    def free(self) -> None:
        (self.path / "filler").unlink()

    def writable(self, yes: bool) -> None:
        subprocess.run(["mount", "-o", "remount,rw" if yes else "remount,ro", self.path], check=True)


async def full(check: Check) -> None:
    try:
        disk = Disk(check)
    except Skip as why:
        check.note(f"SKIPPED: F15 on a real file system: {why}")
        return
    provider = await RotatingProvider(check, lifetime=4).start()
    upstream = await FakeUpstream(check, provider).start()
    secret_file(check.folder / "initial", provider.current)
    store = disk.path / "store"
    text = config(provider.server.url, check.folder, store, upstream.server.url)
    for what, break_it, mend_it in (
        ("full", disk.fill, disk.free),
        ("read-only", lambda: disk.writable(False), lambda: disk.writable(True)),
    ):
        # A file system on which something is open for writing cannot be made read-only: the second one is so from the start.
        if what == "read-only":
            break_it()
        sidecar = await Sidecar.run(check, text, name=f"{what}-disk")
        await ready(sidecar)
        load = Load(sidecar.proxy, lambda number: ("GET", f"/{number}", {}, None, lambda answer: None))
        running = asyncio.create_task(load.run(100, 100_000))
        if what == "full":
            break_it()
        before, rotations = store.read_bytes(), len(provider.commits)
        while len(provider.commits) < rotations + 2:
            await asyncio.sleep(0.05)
        await asyncio.sleep(0.3)
        metrics = (await get(sidecar.admin, "/metrics")).body.decode()
        check.that('attache_token_store_failing{credential="main"} 1' in metrics, f"{what}: the metric says so")
        check.that(store.read_bytes() == before, f"{what}: the old file is byte-identical after {len(provider.commits) - rotations} rotations")
        mend_it()
        mended = time.monotonic()
        while json.loads(store.read_text())["refresh"]["token"] != provider.current and time.monotonic() - mended < 15:
            await asyncio.sleep(0.02)
        took = time.monotonic() - mended
        check.that(took < 6, f"{what}: the newest token is on the disk {took:.1f} s after it was mended")
        load.stopped = True
        outcomes = await running
        failed = [outcome for outcome in outcomes if outcome.status != 200]
        check.that(not failed and len(outcomes) > 300, f"{what}: {len(failed)} failed of {len(outcomes)} requests {failed[:2] or ''}")
        check.that(await sidecar.stop() == 0, f"{what}: exit code 0 after SIGTERM")
    check.that(not provider.reused and provider.refused == 0, "no spent token was presented")
