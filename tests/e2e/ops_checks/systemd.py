"""The systemd unit: verified, and its exposure measured, as far as this machine has systemd."""

import pathlib
import re
import subprocess
import tempfile
import tomllib

from .report import ROOT, attache, check, run, tool

UNIT = ROOT / "config" / "systemd" / "attache.service"


def checks():
    with check("systemd-analyze verify config/systemd/attache.service and attache.socket"):
        analyze = tool("/usr/bin/systemd-analyze")
        with tempfile.TemporaryDirectory() as folder:
            # The binary that is named must be there: the one that was built stands for it.
            copy = pathlib.Path(folder, UNIT.name)
            copy.write_text(UNIT.read_text().replace("/usr/local/bin/attache", attache()))
            port = pathlib.Path(folder, "attache.socket")
            port.write_text(UNIT.with_name(port.name).read_text())
            done = subprocess.run(
                [analyze, "verify", "--man=no", copy, port], capture_output=True, text=True, timeout=60
            )
            # What it says of other units of this machine is not ours.
            said = [line for line in (done.stdout + done.stderr).splitlines() if "attache" in line]
            assert not said, "\n".join(said)
    with check("systemd-analyze security: the unit's exposure is at most 1.5 of 10"):
        analyze = tool("/usr/bin/systemd-analyze")
        said = run(analyze, "security", "--offline=true", "--threshold=15", "--no-pager", UNIT)
        exposure = re.search(r"Overall exposure level for \S+: ([\d.]+)", said)
        assert exposure and float(exposure[1]) <= 1.5, exposure and exposure[0]
    with check("the socket unit holds the port that attaché binds by default"):
        listen = tomllib.loads((ROOT / "config" / "reference.toml").read_text())["proxy"]["listen"]
        assert f"\nListenStream={listen}\n" in UNIT.with_name("attache.socket").read_text()
    with check("the unit does not start again after exit code 78, and starts nothing to which that does not apply"):
        # systemd.service(5): the main process only.
        lines = UNIT.read_text().splitlines()
        assert "RestartPreventExitStatus=78" in lines
        assert not [line for line in lines if line.startswith(("ExecStartPre=", "ExecCondition="))]
    with check("the unit makes the folder in which the examples keep their stores"):
        assert "\nStateDirectory=attache\n" in UNIT.read_text()
        for example in (ROOT / "config" / "examples").glob("*.toml"):
            for store in re.findall(r'^store = "(.*)"', example.read_text(), re.MULTILINE):
                assert store.startswith("/var/lib/attache/"), f"{example.name}: {store}"
