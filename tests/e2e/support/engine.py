"""Debian's Docker engine, started by hand, and images made of what is on this machine: none can be pulled."""

import asyncio
import json
import os
import shutil
import subprocess
from pathlib import Path

from . import tools
from .process import Process
from .report import Check, Failed, Skip


def busybox_binary() -> Path:
    return tools.debian("busybox-static") / "bin/busybox"


class Engine:
    """Debian's Docker engine with a socket and a folder of its own, and without touching the machine's network."""

    def __init__(self, folder, environment):
        self.socket = f"unix://{folder}/docker.sock"
        self.environment = {**environment, "DOCKER_BUILDKIT": "0"}
        self.program = shutil.which("docker", path=environment["PATH"])

    @classmethod
    async def start(cls, check: Check) -> "Engine":
        if os.geteuid() != 0:
            raise Skip("the Docker engine needs root")
        root = tools.debian("docker.io")
        folder = check.folder / "engine"
        self = cls(folder, tools.environment(root))
        daemon = await Process(check, "dockerd").start(
            root / "usr/sbin/dockerd", "--iptables=false", "--ip6tables=false", "--bridge=none", "--ip-forward=false",
            "--shutdown-timeout=5",
            "-H", self.socket, "--data-root", folder / "data", "--exec-root", folder / "run", "-p", folder / "pid",
            env=self.environment,
        )  # fmt: skip
        try:
            await daemon.line("API listen on", 60)
        except Failed as failed:
            raise Skip(f"the Docker engine does not start here: {str(failed).splitlines()[-1][:300]}") from None
        check.at_end(self.clear)
        return self

    async def clear(self) -> None:
        for name in self.docker("ps", "-aq").split():
            self.docker("rm", "-f", name)

    def docker(self, *arguments) -> str:
        command = [self.program, "-H", self.socket, *[str(argument) for argument in arguments]]
        done = subprocess.run(command, env=self.environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        if done.returncode != 0:
            raise Failed(f"docker {' '.join(command[3:])[:200]}: {done.stdout[-2000:]}")
        return done.stdout

    def image(self, folder: Path, name: str, files: dict, dockerfile: str) -> None:
        """Builds an image on nothing: where in it each file lies, as bytes or as what is copied, and what follows."""
        for place, content in files.items():
            path = folder / place.lstrip("/")
            path.parent.mkdir(parents=True, exist_ok=True)
            if isinstance(content, Path):
                (shutil.copytree if content.is_dir() else shutil.copy)(content, path)
            else:
                path.write_text(content)
                path.chmod(0o755)
        (folder / "Dockerfile").write_text(f"FROM scratch\nCOPY . /\n{dockerfile}\n")
        self.docker("build", "-q", "-t", name, folder)

    def busybox(self, folder: Path, name: str, attache: Path, **files) -> None:
        """A stand-in for the image with Rust: busybox, whose `cargo` hands out the binary that is built already."""
        cargo = (
            '#!/bin/sh\nfor word in "$@"; do target=$word; done\n'
            'mkdir -p "target/$target/release" && cp /attache-binary "target/$target/release/attache"\n'
        )
        given = {
            "bin/busybox": busybox_binary(), "attache-binary": attache, "bin/cargo": cargo, "etc/ssl/certs/ca-certificates.crt": "",
        }  # fmt: skip
        self.image(folder, name, given | files, 'RUN ["/bin/busybox", "--install", "/bin"]')

    def run(self, name: str, *arguments) -> None:
        self.docker("run", "-d", "--name", name, *arguments)

    def inspect(self, name: str) -> dict:
        return json.loads(self.docker("inspect", name))[0]

    async def healthy(self, name: str) -> str:
        for _ in range(200):
            state = self.inspect(name)["State"]
            if not state["Running"] or state["Health"]["Status"] != "starting":
                return state["Health"]["Status"] if state["Running"] else f"ended:\n{self.docker('logs', name)[-2000:]}"
            await asyncio.sleep(0.1)
        return "starting for ever"
