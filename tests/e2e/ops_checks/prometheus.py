"""Alerts and dashboard: unit tests, every expression parsed, every metric one that attaché exports."""

import json
import re
import tempfile

from .report import ROOT, TOOLS, Behind, check, run, short, tool
from .sidecar import scrape

ALERTS = ROOT / "config" / "prometheus" / "alerts.yaml"
DASHBOARD = ROOT / "config" / "grafana" / "attache.json"
# Variables of the dashboard, and what stands for them while an expression is parsed.
VARIABLES = {"$__rate_interval": "5m"}


def promtool():
    return tool(TOOLS / "prometheus" / "usr" / "bin" / "promtool")


def dashboard():
    return json.loads(DASHBOARD.read_text())


def expressions():
    """The dashboard's expressions, its variables filled in."""
    found = [target["expr"] for panel in dashboard()["panels"] for target in panel.get("targets", [])]
    assert len(found) > 20, "the dashboard has lost its panels"
    for name, value in VARIABLES.items():
        found = [expr.replace(name, value) for expr in found]
    return found


def metrics_in(text):
    return set(re.findall(r"\b((?:attache|process)_[a-z0-9_]+)\b", text))


def labels_in(expression):
    """Each metric of an expression with the labels and values that it is selected by."""
    for name, selector in re.findall(r"\b((?:attache|process)_[a-z0-9_]+)\{([^}]*)\}", expression):
        for label, _, value in re.findall(r'(\w+)(=~|!~|!=|=)"([^"]*)"', selector):
            yield name, label, value


def source_metrics():
    """Names of metric families, as the sources have them."""
    text = "".join(path.read_text() for path in (ROOT / "src").rglob("*.rs"))
    return set(re.findall(r'"(attache_[a-z0-9_]+)"', text))


def checks():
    with check("promtool check rules config/prometheus/alerts.yaml"):
        run(promtool(), "check", "rules", ALERTS)
    with check("promtool test rules config/prometheus/alerts.test.yaml"):
        run(promtool(), "test", "rules", ALERTS.with_name("alerts.test.yaml"))
    alerts = re.findall(r"^\s+- alert: (\w+)$", ALERTS.read_text(), re.MULTILINE)
    with check(f"each of the {len(alerts)} alerts is tested, and docs/operations.md says what to do about it"):
        tests = ALERTS.with_name("alerts.test.yaml").read_text()
        operations = (ROOT / "docs" / "operations.md").read_text()
        for alert in alerts:
            assert re.search(rf"alertname: {alert}\n\s+exp_alerts:\n\s+- exp_labels", tests), f"{alert} never fires"
            assert f"### {alert}\n" in operations, f"{alert} is not in docs/operations.md"
    with check(f"promtool parses the {len(expressions())} expressions of {short(DASHBOARD)}"):
        with tempfile.NamedTemporaryFile("w", suffix=".json") as rules:
            json.dump(
                {"groups": [{"name": "g", "rules": [
                    {"record": f"r{at}", "expr": expr} for at, expr in enumerate(expressions())
                ]}]}, rules,
            )
            rules.flush()
            run(promtool(), "check", "rules", rules.name)
    exported = {}
    with check("a running attaché exports metrics that promtool accepts"):
        text = scrape()
        run(promtool(), "check", "metrics", input=text)
        for name, labels in re.findall(r"^([a-z][a-z0-9_]+)(?:\{(.*)\})? ", text, re.MULTILINE):
            exported.setdefault(name, set()).update(re.findall(r'(\w+)="', labels))
    with check("every metric of alerts and dashboard is one that attaché has, with these labels"):
        texts = expressions() + [re.sub(r"^\s*#.*$", "", ALERTS.read_text(), flags=re.MULTILINE)]
        names = set().union(*map(metrics_in, texts))
        families = source_metrics()
        assert families, "no metric was found in src/"
        # Families without a child are not in a scrape; histograms have three names.
        for name in names:
            base = re.sub(r"_(bucket|sum|count)$", "", name)
            assert name in exported or base in families or name.startswith("process_"), f"{name} is not a metric"
        for text in texts:
            for name, label, _ in labels_in(text):
                if label in ("job", "instance") or name not in exported:
                    continue
                assert label in exported[name], f"{name} has no label {label}"
    with check("the dashboard shows every metric family of attaché"):
        shown = {re.sub(r"_(bucket|sum|count)$", "", name) for expr in expressions() for name in metrics_in(expr)}
        missing = {name for name in source_metrics() - shown if not name.startswith("attache_test")}
        if missing:
            raise Behind(f"not shown: {', '.join(sorted(missing))}")
    with check("the dashboard's panels do not overlap, and each has a data source"):
        seen = set()
        for panel in dashboard()["panels"]:
            place = panel["gridPos"]
            cells = {
                (x, y)
                for x in range(place["x"], place["x"] + place["w"])
                for y in range(place["y"], place["y"] + place["h"])
            }
            assert not cells & seen and place["x"] + place["w"] <= 24, panel["title"]
            seen |= cells
            assert panel["type"] == "row" or panel["datasource"]["uid"] == "${datasource}", panel["title"]
