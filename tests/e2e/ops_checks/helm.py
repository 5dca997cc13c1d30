"""The Helm chart: linted, rendered on its own and as a library, its values schema in step with `attache schema`."""

import json
import re
import shutil
import subprocess
import tempfile
import tomllib

from . import kubernetes
from .report import ROOT, TOOLS, Behind, attache, check, run, tool

CHARTS = ROOT / "config" / "kubernetes" / "helm"
CHART = CHARTS / "attache"
SCHEMA = CHART / "values.schema.json"
VALUES = ROOT / "tests" / "e2e" / "ops_checks" / "values.yaml"
STORES = VALUES.with_name("stores.yaml")


def helm():
    return tool(TOOLS / "helm")


def wanted():
    """The values schema with attaché's own schema as that of `config`."""
    schema = json.loads(SCHEMA.read_text())
    own = json.loads(run(attache(), "schema"))
    schema["$defs"] = own.pop("$defs", {})
    for key in ("$schema", "title", "required"):
        own.pop(key, None)
    own["description"] = "attaché's configuration; what is missing has attaché's defaults."
    schema["properties"]["config"] = own
    return json.dumps(schema, indent=2, ensure_ascii=False) + "\n"


def template_stores(*changes):
    """The chart with the values in stores.yaml, these texts replaced."""
    text = STORES.read_text()
    for old, new in changes:
        assert old in text, old
        text = text.replace(old, new)
    command = [helm(), "template", "x", str(CHART), "--values", "-"]
    return subprocess.run(command, input=text, capture_output=True, text=True)


def write():
    SCHEMA.write_text(wanted())


def checks():
    with check("helm lint --strict"):
        run(helm(), "lint", "--strict", CHART)
        run(helm(), "lint", "--strict", CHART, "--values", VALUES)
    with check("the chart's values schema knows every key of `attache schema` (if not: tests/e2e/ops --write)"):
        if SCHEMA.read_text() != wanted():
            raise Behind("run tests/e2e/ops --write")
    with check("the chart on its own: valid for Kubernetes 1.29 to 1.37, its configuration passes"):
        text = run(helm(), "template", "orders", CHART, "--namespace", "shop", "--values", VALUES)
        items = kubernetes.objects(text)
        kubernetes.validate(items)
        kubernetes.configurations(items)
        kubernetes.sidecars(items, native=False)
        kinds = {item["kind"] for item in items}
        assert kinds == {
            "ConfigMap", "Deployment", "NetworkPolicy", "PodDisruptionBudget", "PodMonitor", "Service"
        }, kinds
    with check("the chart as a library of another: valid, the sidecar is native, its names fit"):
        with tempfile.TemporaryDirectory() as folder:
            copy = shutil.copytree(CHARTS, f"{folder}/helm")
            run(helm(), "dependency", "build", f"{copy}/example-app")
            for release in ("shop", "example-app", "my-attache"):
                text = run(helm(), "template", release, f"{copy}/example-app")
                items = kubernetes.objects(text)
                kubernetes.validate(items)
                kubernetes.configurations(items)
                kubernetes.sidecars(items)
                volume = re.search(r"configMap:\n\s+name: (\S+)", text)[1]
                config = next(item for item in items if item["kind"] == "ConfigMap")
                assert config["metadata"]["name"] == volume, f"{volume} is mounted, {config['metadata']['name']} is made"
                assert {item["kind"] for item in items} == {"ConfigMap", "Deployment"}
    with check("the chart refuses to be a sidecar with the Deployment's configuration, and ports that nothing leads to"):
        with tempfile.TemporaryDirectory() as folder:
            copy = shutil.copytree(CHARTS, f"{folder}/helm")
            run(helm(), "dependency", "build", f"{copy}/example-app")
            library, alone = [f"{copy}/example-app"], [str(CHART), "--values", str(VALUES)]
            for command, change, why in (
                (library, "attache.standalone.enabled=true", "attache.standalone.enabled"),
                (library, "attache.config.admin.listen=0.0.0.0:7091", "config.admin.listen"),
                (library, "attache.config.proxy.listen=127.0.0.1:8080", None),
                (alone, "config.admin.listen=unix:/run/attache/admin.sock", "config.admin.listen"),
                (alone, "config.proxy.listen=0.0.0.0:8080", "config.proxy.listen"),
                (alone, "config.proxy.listen=0.0.0.0:7080", None),
            ):
                done = subprocess.run(
                    [helm(), "template", "x", *command, "--set", change], capture_output=True, text=True
                )
                assert (done.returncode != 0) == bool(why) and (why or "") in done.stderr, f"{change}: {done.stderr}"
    with check("a store has a volume that outlives the container, and one pod at a time where it outlives the pod"):
        text = run(helm(), "template", "orders", CHART, "--values", STORES)
        items = kubernetes.objects(text)
        kubernetes.validate(items)
        kubernetes.configurations(items)
        deployment = next(item for item in items if item["kind"] == "Deployment")["spec"]
        pod = deployment["template"]["spec"]
        mounts = {mount["name"]: mount for mount in pod["containers"][0]["volumeMounts"]}
        assert mounts["attache-storage"] == {"name": "attache-storage", "mountPath": "/var/lib/attache"}, mounts
        volumes = {volume.pop("name"): volume for volume in pod["volumes"]}
        assert volumes["attache-storage"] == {"persistentVolumeClaim": {"claimName": "orders-attache"}}, volumes
        assert deployment["replicas"] == 1 and deployment["strategy"] == {"type": "Recreate"}, deployment
        claim, empty = "persistentVolumeClaim: {claimName: orders-attache}", "emptyDir: {medium: Memory}"
        for change, why in (
            (("replicas: 1", "replicas: 2"), "one process"),
            ((f"storage: {{{claim}}}", ""), "set `storage`"),
            ((claim, empty), "name a folder of its own"),
            ((claim, f"{claim}, {empty}"), "maxProperties"),
            (("claimName", "claim"), "claim"),
        ):
            done = template_stores(change)
            assert done.returncode != 0 and why in done.stderr, f"{change}: {done.stderr}"
        done = template_stores((claim, empty), ("attache/mailbox\n", "attache/store/mailbox\n"))
        assert done.returncode == 0, done.stderr
        items = kubernetes.objects(done.stdout)
        pod = next(item for item in items if item["kind"] == "Deployment")["spec"]["template"]["spec"]
        assert {"name": "attache-storage", "emptyDir": {"medium": "Memory"}} in pod["volumes"], pod["volumes"]
    with check("a mistyped key in the chart's values is refused before anything is installed"):
        for wrong in ("config.proxy.listne=x", "imgae.tag=1", "probes.startup=readyz"):
            done = subprocess.run(
                [helm(), "template", "x", str(CHART), "--values", str(VALUES), "--set", wrong],
                capture_output=True, text=True,
            )
            assert done.returncode != 0, f"{wrong} was taken"
    with check("the chart, the manifests and the crate have one version"):
        version = tomllib.loads((ROOT / "Cargo.toml").read_text())["package"]["version"]
        for path, pattern in (
            (CHART / "Chart.yaml", r"^version: (\S+)"),
            (CHART / "Chart.yaml", r"^appVersion: (\S+)"),
            (CHART / "templates" / "_library.tpl", r'\$version := "([^"]+)"'),
            (CHARTS.parent / "manifests" / "sidecar.yaml", r"image: attache:(\S+)"),
            (CHARTS.parent / "manifests" / "job.yaml", r"image: attache:(\S+)"),
            (CHARTS.parent / "component" / "sidecar.yaml", r"image: attache:(\S+)"),
        ):
            found = re.search(pattern, path.read_text(), re.MULTILINE)[1]
            assert found == version, f"{path.name} says {found}, Cargo.toml {version}"
