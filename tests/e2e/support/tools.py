"""Installs the peers where they are missing, and finds them.

Debian packages are not installed but unpacked into `.cache/debian/PACKAGE`, with those of their dependencies that the machine
lacks: no service is started, nothing on the machine changes.
"""

import contextlib
import fcntl
import hashlib
import os
import shutil
import subprocess
import sys
from pathlib import Path

from .report import Skip

ROOT = Path(__file__).resolve().parents[3]
CACHE = ROOT / ".cache"
PEERS = ROOT / "tests" / "e2e" / "peers"
VENV = CACHE / "venv"
DEBIAN = CACHE / "debian"
# Packages that the suites ask for; a suite that asks for one that cannot be had is skipped, or fails if it is `nginx-light`.
PACKAGES = ["nginx-light", "tinyproxy-bin", "docker.io", "busybox-static", "chromium", "prometheus", "glewlwyd", "faketime"]


def install() -> None:
    """Installs everything that is missing. Quick when nothing is."""
    npm()
    pip()
    for package in PACKAGES:
        try:
            debian(package)
        except Skip as why:
            print(f"not installed: {why}", flush=True)


@contextlib.contextmanager
def alone():
    """One process at a time: suites run beside one another, and each installs what it misses."""
    CACHE.mkdir(parents=True, exist_ok=True)
    with open(CACHE / "installing", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _stamp(marker: Path, *sources: Path) -> str | None:
    """The fingerprint that `marker` should hold, or nothing when it holds it already."""
    fingerprint = hashlib.sha256(b"".join(source.read_bytes() for source in sources)).hexdigest()
    return None if marker.exists() and marker.read_text() == fingerprint else fingerprint


@alone()
def npm() -> None:
    marker = PEERS / "node_modules" / ".installed"
    if stamp := _stamp(marker, PEERS / "package-lock.json"):
        command = ["npm", "ci", "--no-audit", "--no-fund", "--ignore-scripts", "--cache", str(CACHE / "npm")]
        subprocess.run(command, cwd=PEERS, check=True)
        marker.write_text(stamp)


@alone()
def pip() -> None:
    marker = VENV / ".installed"
    requirements = PEERS / "requirements.txt"
    if stamp := _stamp(marker, requirements):
        shutil.rmtree(VENV, ignore_errors=True)
        subprocess.run([sys.executable, "-m", "venv", str(VENV)], check=True)
        command = [str(VENV / "bin" / "pip"), "install", "-q", "--disable-pip-version-check", "--only-binary", ":all:"]
        subprocess.run([*command, "-r", str(requirements)], check=True)
        marker.write_text(stamp)


@alone()
def debian(package: str) -> Path:
    """The folder that holds the package's files: `/` when it is installed, else where it was unpacked."""
    query = ["dpkg-query", "-W", "-f", "${Status}", package]
    if "ok installed" in subprocess.run(query, capture_output=True, text=True).stdout:
        return Path("/")
    folder = DEBIAN / package
    if (folder / ".installed").exists():
        return folder
    missing = _missing(package)
    if not missing and os.geteuid() == 0:
        subprocess.run(["apt-get", "update", "-qq"], capture_output=True)
        missing = _missing(package)
    if not missing:
        raise Skip(f"the Debian package {package} cannot be had")
    shutil.rmtree(folder, ignore_errors=True)
    archives = folder / "archives"
    archives.mkdir(parents=True)
    download = ["apt-get", "download", "-qq", "-o", "APT::Sandbox::User=root", *missing]
    got = subprocess.run(download, cwd=archives, capture_output=True, text=True)
    if got.returncode != 0 and os.geteuid() == 0:  # the package list may be older than what the registry still has
        subprocess.run(["apt-get", "update", "-qq"], capture_output=True)
        got = subprocess.run(download, cwd=archives, capture_output=True, text=True)
    if got.returncode != 0:
        raise Skip(f"the Debian package {package} cannot be downloaded: {got.stderr.strip()[-300:]}")
    for archive in archives.glob("*.deb"):
        subprocess.run(["dpkg-deb", "-x", str(archive), str(folder)], check=True)
    shutil.rmtree(archives)
    (folder / ".installed").write_text(" ".join(missing))
    return folder


def _missing(package: str) -> list[str]:
    """The package and those of its dependencies that are not installed."""
    simulate = ["apt-get", "install", "-s", "--no-install-recommends", package]
    lines = subprocess.run(simulate, capture_output=True, text=True).stdout.splitlines()
    return [line.split()[1] for line in lines if line.startswith("Inst ")]


def environment(folder: Path) -> dict[str, str]:
    """The environment in which programs of an unpacked package find their libraries and each other."""
    found = dict(os.environ)
    if folder != Path("/"):
        libraries = [folder / "usr/lib/x86_64-linux-gnu", folder / "lib/x86_64-linux-gnu"]
        libraries += [path for path in libraries[0].glob("*") if any(path.glob("*.so*"))]  # pulseaudio has a folder of its own
        programs = [folder / "usr/sbin", folder / "usr/bin", folder / "sbin", folder / "bin"]
        found["LD_LIBRARY_PATH"] = ":".join(str(path) for path in libraries)
        found["PATH"] = ":".join(str(path) for path in programs) + ":" + found["PATH"]
    return found
