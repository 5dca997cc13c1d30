"""The Compose files: each is one that Docker Compose accepts, and so are those in the documents."""

import pathlib
import re
import tempfile

from . import docs
from .report import ROOT, TOOLS, check, committed, run, short, tool


def compose():
    return tool(TOOLS / "venv" / "bin" / "docker-compose")


def checks():
    for path in committed("docker/compose*.yaml", "docker/**/compose*.yaml"):
        with check(f"docker compose --file {short(path)} config"):
            # Those beside the base file add to it.
            base = path.with_name("compose.yaml")
            files = [part for file in dict.fromkeys([base, path]) for part in ("--file", file)]
            said = run(compose(), *files, "config", cwd=ROOT)
            assert "attache:" in said
            # Every file that is mounted is there.
            for source in re.findall(r"source: (/\S+)", said):
                assert pathlib.Path(source).exists() or source.startswith("/var/run/"), f"{source} is not there"
    with check("promtool check config docker/monitoring/prometheus.yaml"):
        with tempfile.TemporaryDirectory() as folder:
            rules = ROOT / "config" / "prometheus" / "alerts.yaml"
            text = (ROOT / "docker" / "monitoring" / "prometheus.yaml").read_text()
            config = pathlib.Path(folder, "prometheus.yaml")
            config.write_text(text.replace("/etc/prometheus/alerts.yaml", str(rules)))
            run(tool(TOOLS / "prometheus" / "usr" / "bin" / "promtool"), "check", "config", config)
    for path in committed("docs/*.md"):
        for block in docs.blocks(path):
            if block.word == "compose.yaml":
                with check(f"{short(path)}, line {block.line}: Docker Compose accepts it"):
                    with tempfile.TemporaryDirectory() as folder:
                        pathlib.Path(folder, "compose.yaml").write_text(block.text)
                        pathlib.Path(folder, ".env").write_text("ORDERS_SECRET=a-secret\n")
                        pathlib.Path(folder, "attache.toml").touch()
                        run(compose(), "--project-directory", folder, "--file", f"{folder}/compose.yaml", "config")
