"""The documents: every block of configuration is loaded, every command is run, every link leads somewhere.

The word after the language says what a block is:

    ```toml                 a whole configuration, which attaché must accept
    ```toml NAME            the same, and a file of that name for the commands of the page
    ```toml PATH            (a path of the project) the same, and equal to that file
    ```toml fragment        sections that are added to the reference configuration
    ```yaml NAME            a file for the commands; a Compose file or Helm values by its name
    ```sh                   commands that are run, block by block, in one folder a page
    ```sh background        the same, not waited for
    ```sh elsewhere         commands that need a cluster, an image or a provider: parsed, and each `attache` in them has the command
                            and the options that it is given
    ```yaml                 a part of a Pod or of a Kustomization, held against what they may be

Commands run in a network of their own, so that the ports in the documents are free.
"""

import dataclasses
import os
import pathlib
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time

from .kubernetes import objects, validate
from .report import ROOT, TOOLS, Behind, Skip, attache, check, check_config, committed, run, short

PAGES = ["docs/**/*.md", "docs/*.md", "README.md", "config/**/README.md"]


@dataclasses.dataclass
class Block:
    language: str
    word: str
    line: int
    text: str


def blocks(path):
    """The fenced blocks of a page, their indentation removed."""
    found, current, indent = [], None, ""
    for number, line in enumerate(path.read_text().splitlines(), 1):
        fence = re.match(r"^(\s*)```\s*(\w*)\s*(.*)$", line)
        if current is None and fence:
            indent = fence[1]
            current = Block(fence[2], fence[3].strip(), number, "")
        elif current is not None and fence:
            found.append(current)
            current = None
        elif current is not None:
            current.text += line.removeprefix(indent) + "\n"
    assert current is None, f"{short(path)}: a block that does not end"
    return found


def load(block):
    """Lets attaché check a TOML block."""
    if block.word == "fragment":
        reference = (ROOT / "config" / "reference.toml").read_text()
        for section in re.findall(r"^\[[^\]]+\]$", block.text, re.MULTILINE):
            reference = re.sub(rf"^{re.escape(section)}$(.|\n)*?(?=^\[|\Z)", "", reference, flags=re.MULTILINE)
        check_config(reference + "\n" + block.text, "toml")
        return
    check_config(block.text, "toml")
    if "/" in block.word:
        assert (ROOT / block.word).read_text().strip() == block.text.strip(), f"differs from {block.word}"


def anchor(heading):
    """The anchor that GitHub makes of a heading."""
    return re.sub(r"[^\w\- ]", "", heading.lower().replace("`", "")).replace(" ", "-")


def links(path):
    text = re.sub(r"```.*?```", "", path.read_text(), flags=re.DOTALL)
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        if re.match(r"https?:|mailto:", target):
            continue
        name, _, fragment = target.partition("#")
        file = (path.parent / name).resolve() if name else path
        assert file.exists(), f"{short(path)} leads to {target}, which is not there"
        if fragment and file.suffix == ".md":
            headings = re.findall(r"^#+ (.+)$", file.read_text(), re.MULTILINE)
            assert fragment in map(anchor, headings), f"{short(path)} leads to {target}; there is no such heading"


def parts_of_the_network():
    """What runs a command in a network of its own, or nothing where that is not allowed."""
    up = (
        "import fcntl, os, socket, struct, sys; s = socket.socket(); "
        "fcntl.ioctl(s, 0x8914, struct.pack('16sh14x', b'lo', 0x49)); os.execvp(sys.argv[1], sys.argv[1:])"
    )
    command = ["unshare", "--net", sys.executable, "-c", up]
    done = subprocess.run([*command, "true"], capture_output=True)
    if done.returncode:
        raise Skip("this machine does not allow a network of its own, and the ports of the documents may be taken")
    return command


def script(page):
    """All commands of a page as one shell script, which names the line that failed."""
    lines = ["set -euo pipefail", "trap 'kill $(jobs -p) 2>/dev/null || true' EXIT"]
    for block in page:
        if block.language != "sh" or block.word == "elsewhere":
            continue
        lines.append(f"echo '--- the block in line {block.line}' >&2")
        if block.word == "background":
            lines.append(f"(exec {block.text.strip()}) &")
            lines.append('for _ in $(seq 100); do attache probe >/dev/null 2>&1 && break; sleep 0.1; done')
        else:
            lines.append(block.text)
    return "\n".join(lines) + "\n"


def known(block):
    """Each call of attaché in a block has a command and options that attaché knows."""
    for command, rest in re.findall(r"(?:^|[\s/;&|])attache (\w[\w-]*)([^\n;&|#]*)", block.text):
        helps = run(attache(), command, "--help")
        for option in re.findall(r"(?<=\s)--?\w[\w-]*", rest):
            assert re.search(rf"(?<![\w-]){re.escape(option)}\b", helps), f"line {block.line}: `attache {command}` has no {option}"


def part(block):
    """A part of a Pod, or of a Kustomization that names this project's component."""
    [item] = objects(block.text)
    if components := item.pop("components", None):
        for path in components:
            assert (ROOT / path.removeprefix("path/to/") / "kustomization.yaml").exists(), path
    if item:
        spec = {"containers": [{"name": "app", "image": "app"}], **item}
        validate([{"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "app"}, "spec": spec}])


def commands(path, page):
    """Runs the commands of a page, as a reader would, in a copy of what they name."""
    helps = run(attache(), "--help")
    for name in set(re.findall(r"(?:^|exec )attache (\w+)", script(page), re.MULTILINE)):
        if f"\n  {name} " not in helps:
            raise Skip(f"this attaché has no `{name}` yet")
    with tempfile.TemporaryDirectory() as folder:
        work = pathlib.Path(folder, "work")
        shutil.copytree(ROOT / "config", work / "config")
        binaries = pathlib.Path(folder, "bin")
        binaries.mkdir()
        for name, program in (
            ("attache", attache()), ("helm", TOOLS / "helm"), ("kubectl", TOOLS / "kubectl"),
            ("promtool", TOOLS / "prometheus" / "usr" / "bin" / "promtool"),
        ):
            if pathlib.Path(program).exists():
                (binaries / name).symlink_to(pathlib.Path(program).resolve())
        for block in page:
            if block.language in ("toml", "yaml") and re.fullmatch(r"[\w.-]+\.(toml|yaml)", block.word):
                (work / block.word).write_text(block.text)
        process = subprocess.Popen(
            [*parts_of_the_network(), "bash", "-c", script(page)], cwd=work, text=True, start_new_session=True,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
            env={**os.environ, "PATH": f"{binaries}:{os.environ['PATH']}"},
        )
        try:
            said, _ = process.communicate(timeout=120)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            said, _ = process.communicate()
            raise AssertionError(f"does not end:\n{said[-2000:]}") from None
        assert process.returncode == 0, f"ended with {process.returncode}:\n{said[-3000:]}"


def reasons():
    """The reasons in the source, each with its status code."""
    source = (ROOT / "src" / "proxy" / "error.rs").read_text()
    words = dict(re.findall(r'Self::(\w+) => "([a-z_]+)",', source.split("fn word")[1].split("fn status")[0]))
    codes = {}
    arms = source.split("fn status")[1].split("fn explanation")[0]
    for arm in re.findall(r"((?:Self::\w+[\s|]*)+)=>[\s{]*StatusCode::(\w+)", re.sub(r"//.*", "", arms)):
        for variant in re.findall(r"Self::(\w+)", arm[0]):
            codes[words[variant]] = arm[1]
    missing = set(words.values()) - set(codes)
    assert words and not missing, f"no status could be read from src/proxy/error.rs for {sorted(missing)}"
    return codes


CODES = {
    "BAD_REQUEST": 400, "FORBIDDEN": 403, "NOT_FOUND": 404, "METHOD_NOT_ALLOWED": 405, "MISDIRECTED_REQUEST": 421,
    "INTERNAL_SERVER_ERROR": 500, "BAD_GATEWAY": 502, "SERVICE_UNAVAILABLE": 503, "GATEWAY_TIMEOUT": 504,
    "LOOP_DETECTED": 508, "CONTENT_TOO_LARGE": 413, "PAYLOAD_TOO_LARGE": 413, "REQUEST_TIMEOUT": 408,
    "REQUEST_HEADER_FIELDS_TOO_LARGE": 431, "TOO_MANY_REQUESTS": 429, "NOT_IMPLEMENTED": 501, "EXPECTATION_FAILED": 417, "UNAUTHORIZED": 401,
}


def checks():
    pages = {path: blocks(path) for path in committed(*PAGES)}
    for path, page in pages.items():
        if configs := [block for block in page if block.language == "toml"]:
            with check(f"{short(path)}: attaché accepts its {len(configs)} configurations"):
                for block in configs:
                    try:
                        load(block)
                    except AssertionError as error:
                        raise AssertionError(f"line {block.line}: {error}") from None
        ran = [block for block in page if block.language == "sh" and block.word != "elsewhere"]
        if ran and path.name != "README.md":
            with check(f"{short(path)}: its {len(ran)} blocks of commands run"):
                since = time.monotonic()
                commands(path, page)
                assert time.monotonic() - since < 100
        if elsewhere := [block for block in page if block.word == "elsewhere"]:
            with check(f"{short(path)}: its {len(elsewhere)} blocks for elsewhere are shell, with options that are there (not run)"):
                for block in elsewhere:
                    run("bash", "-n", input=block.text)
                    known(block)
        if parts := [block for block in page if block.language == "yaml" and not block.word]:
            with check(f"{short(path)}: its {len(parts)} parts of manifests are valid"):
                for block in parts:
                    part(block)
        if path.name == "README.md" and (shell := [block for block in page if block.language == "sh"]):
            with check(f"{short(path)}: what its {len(shell)} blocks of commands call is there"):
                for block in shell:
                    run("bash", "-n", input=block.text)
                    known(dataclasses.replace(block, text=block.text.replace("cargo run --release --", "attache")))
                    for program in re.findall(r"^(tests/\S+|benches/\S+)", block.text, re.MULTILINE):
                        assert os.access(ROOT / program, os.X_OK), f"line {block.line}: there is no {program}"
        with check(f"{short(path)}: its links lead somewhere"):
            links(path)
    with check("docs/reasons.md has every reason, with its status, and no other"):
        text = (ROOT / "docs" / "reasons.md").read_text()
        codes = reasons()
        listed = set(re.findall(r"^### (\w+)$", text, re.MULTILINE))
        for word in listed & set(codes):
            row = f"| [`{word}`](#{word}) | {CODES[codes[word]]} |"
            assert row in text, f"{word} ({codes[word]}) is not so in the table"
        if listed != set(codes):
            raise Behind(f"not there: {set(codes) - listed}; no longer reasons: {listed - set(codes)}")
    with check("docs/: every key of attaché that is named exists"):
        reference = (ROOT / "config" / "reference.toml").read_text()
        for path in pages:
            for key in re.findall(r"`(?:proxy|admin|shutdown|log)\.(\w+)`", path.read_text()):
                assert re.search(rf"^(# )?{key} = ", reference, re.MULTILINE), f"{short(path)} names {key}"
