"""Manifests and the Kustomize component: each object against the schemas of Kubernetes 1.29 to 1.37."""

import re

from .report import ROOT, TOOLS, Skip, check, check_config, committed, run, short, tool

VERSIONS = [f"1.{minor}.0" for minor in range(29, 38)]
FOLDER = ROOT / "config" / "kubernetes"


def kubectl():
    return tool(TOOLS / "kubectl")


def objects(text):
    try:
        import yaml
    except ImportError:
        raise Skip("PyYAML is not here") from None
    return [item for item in yaml.safe_load_all(text) if item]


def validate(items):
    """Each object strictly: a key that Kubernetes does not know is a mistake."""
    try:
        import kubernetes_validate
    except ImportError:
        raise Skip("kubernetes-validate is not here") from None
    assert items, "there is no object"
    for item in items:
        if item["apiVersion"].startswith("monitoring.coreos.com/"):
            pod_monitor(item)
            continue
        for version in VERSIONS:
            kubernetes_validate.validate(item, version, strict=True)


def pod_monitor(item):
    """Its schema is the Prometheus operator's, which no package holds: the keys that are used are few."""
    assert item["kind"] == "PodMonitor" and set(item) == {"apiVersion", "kind", "metadata", "spec"}, item
    assert set(item["spec"]) == {"selector", "podMetricsEndpoints"}, item["spec"]
    for endpoint in item["spec"]["podMetricsEndpoints"]:
        assert endpoint["port"] == "attache-admin" and endpoint["path"] == "/metrics", endpoint
        assert re.fullmatch(r"\d+(ms|s|m|h)", endpoint["interval"]), endpoint


def configurations(items):
    """attaché checks every configuration that a ConfigMap holds."""
    found = 0
    for item in items:
        if item["kind"] == "ConfigMap":
            for name, text in item["data"].items():
                check_config(text, name.rsplit(".", 1)[1])
                found += 1
    assert found, "there is no ConfigMap"


def sidecars(items, native=True):
    """What must hold wherever attaché runs."""
    found = 0
    for item in items:
        spec = item.get("spec", {}).get("template", {}).get("spec")
        if not spec:
            continue
        containers = spec.get("initContainers", []) if native else spec["containers"]
        for container in (each for each in containers if each["name"] == "attache"):
            found += 1
            safe, pod = container["securityContext"], spec["securityContext"]
            assert safe["runAsNonRoot"] and safe["readOnlyRootFilesystem"] and safe["runAsUser"] == 65532
            assert safe["capabilities"]["drop"] == ["ALL"] and not safe["allowPrivilegeEscalation"]
            assert safe["seccompProfile"]["type"] == "RuntimeDefault"
            assert pod["fsGroup"] == 65532, "attaché could not read its secrets"
            assert container["livenessProbe"]["httpGet"]["path"] == "/livez", "a probe of the provider restarts pods"
            assert not native or container["restartPolicy"] == "Always"
            assert spec["terminationGracePeriodSeconds" if item["kind"] == "Deployment" else "restartPolicy"]
            assert item["spec"]["template"]["metadata"]["labels"]["attache"] == "sidecar", "the PodMonitor misses it"
            mounts = {mount["name"] for mount in container["volumeMounts"]}
            assert mounts <= {volume["name"] for volume in spec["volumes"]}, "a mount without a volume"
    assert found, "attaché is not there"


def checks():
    everything = []
    for path in committed("config/kubernetes/manifests/*.yaml"):
        with check(f"{short(path)} is valid for Kubernetes 1.29 to 1.37"):
            items = objects(path.read_text())
            everything += items
            validate(items)
    with check("the plain manifests: attaché's configuration passes, security context and probes are as promised"):
        configurations(everything)
        sidecars(everything)
        names = {(item["kind"], item["metadata"]["name"]) for item in everything}
        assert ("ConfigMap", "checkout-attache") in names and ("Secret", "checkout-orders") in names
    with check("kubectl kustomize config/kubernetes/example adds the sidecar with one line, first of the init containers"):
        items = objects(run(kubectl(), "kustomize", FOLDER / "example"))
        validate(items)
        configurations(items)
        sidecars(items)
        deployment = next(item for item in items if item["kind"] == "Deployment")
        spec = deployment["spec"]["template"]["spec"]
        assert [each["name"] for each in spec["initContainers"]] == ["attache", "migrate"], spec["initContainers"]
        generated = {item["metadata"]["name"] for item in items}
        used = {volume.get("configMap", {}).get("name") or volume["secret"]["secretName"] for volume in spec["volumes"]}
        assert used <= generated, f"volumes name {used}, generated are {generated}"
    with check("the component says the same as the plain manifest"):
        plain = next(item for item in everything if item["kind"] == "Deployment")
        component = objects((FOLDER / "component" / "sidecar.yaml").read_text())[0]
        one, other = (
            next(each for each in item["spec"]["template"]["spec"]["initContainers"] if each["name"] == "attache")
            for item in (plain, component)
        )
        assert one == other, f"{one}\n{other}"
