"""One line a check, counts at the end, and what the checks share: the project, its tools, its binary."""

import base64
import contextlib
import json
import os
import pathlib
import subprocess
import tempfile
import time

ROOT = pathlib.Path(__file__).resolve().parents[3]
TOOLS = ROOT / ".cache" / "ops"
counts = {"ok": 0, "FAILED": 0, "SKIPPED": 0, "BEHIND": 0}


class Skip(Exception):
    """Why a check cannot be made here."""


class Behind(Exception):
    """What operators have does not know yet what the code has. A release must not go out so; a change may land so."""


def _line(outcome, name, more=""):
    counts[outcome] += 1
    print(f"{outcome:8}{name}{': ' if more else ''}{more}", flush=True)


@contextlib.contextmanager
def check(name):
    """A check: it fails when its block raises, and is skipped when that raises `Skip`."""
    try:
        yield
    except Skip as reason:
        _line("SKIPPED", name, str(reason))
    except Behind as what:
        _line("BEHIND", name, str(what))
    except Exception as error:  # the next checks are still worth making
        _line("FAILED", name, f"{type(error).__name__}: {error}" if not isinstance(error, AssertionError) else str(error))
    else:
        _line("ok", name)


def tool(*candidates):
    """The first of these programs that is there."""
    for candidate in candidates:
        if pathlib.Path(candidate).exists():
            return str(candidate)
    raise Skip(f"{pathlib.Path(candidates[0]).name} is not here")


def run(*command, status=0, **options):
    """Runs a program, and returns what it printed. Anything but `status` is a failure that shows its output."""
    done = subprocess.run([str(part) for part in command], capture_output=True, text=True, timeout=300, **options)
    assert done.returncode == status, (
        f"`{' '.join(map(str, command))}` ended with {done.returncode}:\n{done.stdout}{done.stderr}"
    )
    return done.stdout


def attache():
    """The binary: $ATTACHE_BIN, or the newest that has been built, or one that is built now."""
    if "ATTACHE_BIN" in os.environ:
        return os.environ["ATTACHE_BIN"]
    target = pathlib.Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target"))
    built = [path for profile in ("release", "debug") if (path := target / profile / "attache").exists()]
    if not built:
        run("cargo", "build", "--quiet", cwd=ROOT)
        built = [target / "debug" / "attache"]
    return str(max(built, key=lambda path: path.stat().st_mtime))


def committed(*patterns):
    """Files of the project, as git knows them and those that are new."""
    listed = run("git", "ls-files", "--cached", "--others", "--exclude-standard", "--", *patterns, cwd=ROOT)
    return [ROOT / name for name in sorted(set(listed.split("\n"))) if name and (ROOT / name).exists()]


def short(path):
    return str(pathlib.Path(path).relative_to(ROOT))


def check_config(text, ending):
    """Lets attaché check a configuration, with every file and variable that it names standing there."""
    import re

    with tempfile.TemporaryDirectory() as folder:
        environment = dict(os.environ)
        secrets = {}

        def secret(match):
            path = pathlib.Path(folder, f"secret{len(secrets)}")
            key = secrets.get(match[2].replace("-cert.pem", ".pem"))
            path.write_text(_content(match[2], key))
            path.chmod(0o600)
            secrets[match[2]] = path
            return f"{match[1]}{path}"

        text = re.sub(r'(\b(?:ca_file|file|certificate|client_certificate)\b["\s]*[=:]\s*["\']?)([\w./-]+)(?=["\'\s},])', secret, text)
        text = re.sub(r'(\bstore\b\s*[=:]\s*["\']?)/[\w./-]+(?=["\'\s])', rf"\1{folder}/store", text)
        for name in re.findall(r'\benv\b\s*[=:]\s*["\']?([A-Z][A-Z0-9_]*)', text):
            environment[name] = "a-secret"
        config = pathlib.Path(folder, f"attache.{ending}")
        config.write_text(text)
        return run(attache(), "check", "--config", config, env=environment)


def _content(path, key=None):
    if path.endswith("-cert.pem") and key:  # the certificate of a key that stands before it
        return run("openssl", "req", "-x509", "-new", "-key", key, "-subj", "/CN=test client", "-days", "2")
    if "ca" in pathlib.Path(path).name and path.endswith((".pem", ".crt")):
        return run(
            "openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes",
            "-keyout", "/dev/null", "-subj", "/CN=test authority", "-days", "2",
        )
    if path.endswith(".pem"):
        return run("openssl", "genpkey", "-algorithm", "RSA", "-pkeyopt", "rsa_keygen_bits:2048")
    if path.endswith("-token"):
        def part(value):
            return base64.urlsafe_b64encode(json.dumps(value).encode()).decode().rstrip("=")

        return f"{part({'alg': 'none'})}.{part({'exp': int(time.time()) + 3600})}.c2lnbmF0dXJl"
    return "a-secret-that-is-long-enough-to-be-a-key"
