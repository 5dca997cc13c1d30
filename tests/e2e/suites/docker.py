"""The image, built by the project's own Dockerfile and run by Debian's Docker engine beside an application's container.

No base image can be assumed to be reachable, so the builder is a stand-in: busybox, whose `cargo` hands out the binary that is
built already. Everything else is the Dockerfile as it is. The application's container is busybox as well; the provider, the
upstream and a DNS server run inside its network namespace.
"""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

from support import tools
from support.engine import Engine
from support.process import Process
from support.report import Check, Failed

SECRET = "docker-client-secret-8Xw2"
CONFIG = """
[credentials.main]
type = "client_credentials"
token_endpoint = "http://provider.hosts.test:8080/token"
client_id = "docker"
client_auth = "client_secret_post"
client_secret = { env = "CLIENT_SECRET" }
unsafe_plaintext = true

[routes.main]
upstream = "http://upstream.dns.test:8080"
credential = "main"
unsafe_plaintext = true
"""


async def main(check: Check) -> None:
    check.secret("client secret", SECRET)
    check.secret("access token", "standin-access-token-5f1d7c")
    linked = subprocess.run(["ldd", check.attache], capture_output=True, text=True, env={**os.environ, "LC_ALL": "C"})
    said = linked.stdout + linked.stderr
    check.that("not a dynamic executable" in said or "statically linked" in said, "the binary is static")
    target = check.attache.parents[2]
    places = {tools.ROOT, target, Path(os.environ.get("CARGO_HOME", Path.home() / ".cargo"))}
    found = [place for place in places if str(place).encode() in check.attache.read_bytes()]
    check.that(not found, f"it holds no path of the machine that built it {found or ''}")
    engine = await Engine.start(check)

    bundle = Path("/etc/ssl/certs/ca-certificates.crt")
    authorities = {"etc/ssl/certs/ca-certificates.crt": bundle} if bundle.exists() else {}
    engine.busybox(check.folder / "builder", "standin", check.attache, **authorities)
    engine.docker("build", "-q", "-t", "attache", "--build-arg", "BUILDER=standin", tools.ROOT)
    image = json.loads(engine.docker("image", "inspect", "attache"))[0]
    size = image["Size"] / 1e6
    check.that(image["Config"]["User"] == "65532:65532", "the image is built, its user is 65532")
    # Without a profile for this processor everything is compiled for speed, and larger.
    allowed = 9.5 if (tools.ROOT / f"benches/profile.{os.uname().machine}").exists() else 12
    told = f"it has {size:.2f} MB, {allowed} are allowed{'' if authorities else ' (without authorities)'}"
    check.that(size <= allowed, told)
    labels = image["Config"]["Labels"] or {}
    wanted = {f"org.opencontainers.image.{name}" for name in ("title", "description", "licenses")}
    check.that(wanted <= labels.keys(), f"and says what it is: {labels}")

    resolve = check.folder / "resolv.conf"
    resolve.write_text("nameserver 127.0.0.1\noptions timeout:1 attempts:1\n")
    hosts = check.folder / "hosts"
    hosts.write_text("127.0.0.1 localhost\n127.0.0.1 provider.hosts.test\n")
    config = check.folder / "docker-attache.toml"
    config.write_text(CONFIG)
    for file in (resolve, hosts, config):
        file.chmod(0o644)
    engine.run("app", "--network=none", "--stop-timeout=1", "standin", "/bin/sleep", "600")
    inside = engine.inspect("app")["State"]["Pid"]
    peers = await Process(check, "stand-in").start(
        "nsenter", "-t", inside, "-n", sys.executable, tools.PEERS / "standin.py"
    )
    await peers.line("^listening")
    engine.run(
        "sidecar", "--network=container:app", "--read-only", "--cap-drop=ALL", "--security-opt=no-new-privileges",
        "--health-interval=1s", "-e", f"CLIENT_SECRET={SECRET}",
        "-v", f"{config}:/etc/attache.toml:ro", "-v", f"{resolve}:/etc/resolv.conf:ro", "-v", f"{hosts}:/etc/hosts:ro",
        "attache", "run", "--config", "/etc/attache.toml",
    )  # fmt: skip
    health = await engine.healthy("sidecar")
    check.seen("log of the container", engine.docker("logs", "sidecar"))
    check.that(health == "healthy", f"the container is {health}, by `attache probe`")
    try:
        answer = engine.docker("exec", "app", "wget", "-q", "-O", "-", "http://127.0.0.1:7080/")
    except Failed as failed:
        check.note(f"{failed}\nstand-in:\n{peers.text()}\nsidecar:\n{engine.docker('logs', 'sidecar')}")
        raise
    check.that(answer == "hello from the upstream\n", f"the application gets the upstream's answer: {answer.strip()!r}")
    for expected in ("token request to provider.hosts.test", "DNS question 1 for upstream.dns.test", "token right"):
        await peers.line(expected)
        check.that(True, f"seen by the peers: {expected}")
    process = engine.inspect("sidecar")["State"]["Pid"]
    with open(f"/proc/{process}/status") as file:
        status = file.read()
    uid, rights = (re.search(rf"{key}:\s+(\S+)", status).group(1) for key in ("Uid", "CapEff"))
    check.that((uid, int(rights, 16)) == ("65532", 0), f"it runs as {uid} with the capabilities {rights}")
    host = engine.inspect("sidecar")["HostConfig"]
    check.that(host["ReadonlyRootfs"], "on a read-only root")
    engine.docker("stop", "-t", "10", "sidecar")
    state = engine.inspect("sidecar")["State"]
    check.that(state["ExitCode"] == 0, f"`docker stop`: exit {state['ExitCode']}")
    check.seen("log of the container", engine.docker("logs", "sidecar"))
