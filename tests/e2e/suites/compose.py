"""The Compose set of docker/, brought up by Docker Compose on a real engine, each service behind the health of what it needs.

No base image can be pulled here: images of the same names are made of this machine's node, busybox and Prometheus. The compose
files, the configuration and both Dockerfiles are the project's own. Grafana has no stand-in, so it is left out; that its
dashboard has data is what `ops` shows. Without a bridge on this machine, `app` gets a network of its own that leads nowhere.
"""

import asyncio
import json
import os
import re
import shutil
import subprocess
from pathlib import Path

from support import tools
from support.engine import Engine, busybox_binary
from support.report import Check, Failed, Skip

SERVICES = ["app", "attache", "provider", "upstream", "prometheus"]
OVERRIDE = """
services:
  app:
    network_mode: none
    ports: !reset []
  attache:
    healthcheck: {interval: 1s}
"""
CURL = '#!/bin/sh\nfor word in "$@"; do url=$word; done\nexec wget -q -O - "$url"\n'
NPM = "#!/bin/sh\ncp -r /node_modules .\n"
PASSWD = "root:x:0:0::/root:/bin/sh\nnode:x:1000:1000::/:/bin/sh\nnobody:x:65534:65534::/:/bin/sh\n"


def libraries(program: Path) -> dict[str, Path]:
    """What a program is linked to, by where it is looked for."""
    said = subprocess.run(["ldd", program], capture_output=True, text=True, check=True).stdout
    return {found: Path(found).resolve() for found in re.findall(r"(/\S+) \(0x", said)}


def named(file: str, pattern: str) -> str:
    """The image that a file of the project names."""
    return re.search(pattern, (tools.ROOT / file).read_text())[1]


def images(check: Check, engine: Engine) -> None:
    """What would be pulled and built: stand-ins for the bases, and on them the project's own Dockerfiles."""
    install = 'RUN ["/bin/busybox", "--install", "/bin"]'
    common = {"bin/busybox": busybox_binary(), "etc/passwd": PASSWD}
    engine.busybox(check.folder / "rust", named("Dockerfile", r"ARG BUILDER=(\S+)"), check.attache)
    engine.docker("build", "-q", "-t", "attache", tools.ROOT)
    curl = named("docker/compose.yaml", r"image: (curlimages/\S+)")
    engine.image(check.folder / "curl", curl, {**common, "bin/curl": CURL}, install)
    node = Path(shutil.which("node") or "/usr/bin/node").resolve()
    modules = tools.PEERS / "node_modules"
    files = {**common, **libraries(node), "bin/node": node, "bin/npm": NPM, "node_modules": modules}
    engine.image(check.folder / "node", named("docker/peers.Dockerfile", r"FROM (\S+)"), files, f"{install}\nENV PATH=/bin")
    context = check.folder / "peers"
    shutil.copytree(tools.PEERS, context / "tests/e2e/peers", ignore=shutil.ignore_patterns("node_modules"))
    engine.docker("build", "-q", "-t", "attache-peers", "-f", tools.ROOT / "docker/peers.Dockerfile", context)
    prometheus = tools.debian("prometheus") / "usr/bin/prometheus"
    files = {**common, **libraries(prometheus), "bin/prometheus": prometheus}
    last = 'USER nobody\nWORKDIR /prometheus\nENTRYPOINT ["/bin/prometheus"]'
    name = named("docker/compose.monitoring.yaml", r"image: (prom/\S+)")
    engine.image(check.folder / "prom", name, files, f"{install}\nENV PATH=/bin\n{last}")


class Compose:
    def __init__(self, check: Check, engine: Engine):
        self.engine = engine
        override = check.folder / "override.yaml"
        override.write_text(OVERRIDE)
        files = [tools.ROOT / "docker/compose.yaml", tools.ROOT / "docker/compose.monitoring.yaml", override]
        self.command = [tools.VENV / "bin/docker-compose", *[part for file in files for part in ("-f", file)]]

    async def __call__(self, *arguments) -> str:
        process = await asyncio.create_subprocess_exec(
            *[str(part) for part in (*self.command, *arguments)],
            env={**self.engine.environment, "DOCKER_HOST": self.engine.socket, "HOME": os.environ.get("HOME", "/")},
            stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT,
        )  # fmt: skip
        said = (await process.communicate())[0].decode(errors="replace")
        if process.returncode != 0:
            raise Failed(f"docker compose {' '.join(map(str, arguments))}: {said[-3000:]}")
        return said

    async def inside(self, *command) -> str:
        return await self("exec", "-T", "app", *command)


async def main(check: Check) -> None:
    check.secret("client secret", "not-a-secret")
    if not (tools.VENV / "bin/docker-compose").exists():
        raise Skip("Docker Compose is not here")
    engine = await Engine.start(check)
    images(check, engine)
    check.that(True, "the images of the set are built, by the project's Dockerfiles where it has them")
    compose = Compose(check, engine)
    check.at_end(lambda: compose("down", "--timeout", "0"))
    try:
        await compose("up", "--detach", "--no-build", "--pull=never", "--wait", "--wait-timeout", "60", *SERVICES)
    except Failed:
        check.note(await compose("logs", "--tail", "20"))
        raise

    states = [json.loads(line) for line in (await compose("ps", "--format", "json")).splitlines() if line.startswith("{")]
    found = {state["Service"]: (state["State"], state["Health"]) for state in states}
    wanted = {name: ("running", "" if name == "app" else "healthy") for name in SERVICES}
    check.that(found == wanted, f"each runs, and is healthy: {found}")
    answer = ""
    for _ in range(100):
        answer = await compose("logs", "--no-log-prefix", "app")
        if "https://orders" in answer:
            break
        await asyncio.sleep(0.1)
    lines = [line for line in answer.splitlines() if line.startswith("{")]
    right = [json.loads(line) for line in lines if json.loads(line).get("audience") == "https://orders"]
    check.that(bool(right), f"the application, which has no credential, gets its answers: {(lines or [answer])[0]}")
    status = json.loads(await compose.inside("wget", "-q", "-O", "-", "http://127.0.0.1:7090/status"))
    check.that(status["ready"] and status["credentials"][0]["state"] == "fresh", "attaché has a fresh token from the provider")

    async def asked(expression: str) -> list:
        url = f"http://127.0.0.1:9090/api/v1/query?query={expression}"
        return json.loads(await compose.inside("wget", "-q", "-O", "-", url))["data"]["result"]

    scraped = []
    for _ in range(60):
        scraped = await asked("sum(attache_requests_total)")
        if scraped and float(scraped[0]["value"][1]) > 0:
            break
        await asyncio.sleep(0.25)
    check.that(bool(scraped), f"Prometheus has scraped attaché: {scraped[0]['value'][1] if scraped else 'nothing'} requests")
    rules = json.loads(await compose.inside("wget", "-q", "-O", "-", "http://127.0.0.1:9090/api/v1/rules"))
    names = [rule["name"] for group in rules["data"]["groups"] for rule in group["rules"]]
    check.that("AttacheTokenExpiring" in names, f"and judges {len(names)} alerts")
    firing = await asked("ALERTS")
    check.that(not firing, f"none of which fires {firing or ''}")

    # The sidecar goes and comes back, as an upgrade does; the application stays.
    await compose("up", "--detach", "--no-build", "--no-deps", "--force-recreate", "--wait", "attache")
    again = await compose.inside("wget", "-q", "-O", "-", "http://127.0.0.1:7080/again")
    check.that('"/again"' in again, "after the sidecar was made anew, the application is answered again")
    check.seen("log of attaché", await compose("logs", "attache"))
    await compose("stop", "--timeout", "10", "attache")
    state = engine.inspect(container(states))["State"]
    check.that(state["ExitCode"] == 0, f"`docker compose stop attache`: exit {state['ExitCode']}")


def container(states: list[dict]) -> str:
    return next(state["Name"] for state in states if state["Service"] == "attache")
