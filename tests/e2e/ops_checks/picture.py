"""The dashboard as a picture, for whoever changes it: `tests/e2e/ops --picture` draws it to .cache/dashboard.png.

Grafana itself comes from none of the registries that this suite uses, so this draws what Grafana would: each panel at its place
and in its size, every expression evaluated over time by a real Prometheus, with Grafana's units, thresholds and legends, on a
minute in which much goes wrong. It shows what is empty, unreadable, too long or twice there; not how Grafana's pixels lie.
"""

import contextlib
import html
import json
import math
import pathlib
import subprocess
import tempfile
import threading
import time
import urllib.parse

from support import tools

from .live import CONFIG, peers, prometheus, until
from .prometheus import dashboard
from .report import ROOT
from .sidecar import get, running

# A refresh token whose family ends, a collector that is down, a key that weakens a promise, an upstream with few connections.
MORE = """
[traces]
endpoint = "http://127.0.0.1:9"
[credentials.person]
type = "refresh_token"
token_endpoint = "http://127.0.0.1:{port}/token"
client_id = "checkout"
client_auth = "none"
refresh_token = {{ env = "OPS_SECRET" }}
store = "{folder}/store"
required = false
[routes.person]
path = "/person"
upstream = "http://localhost:{port}"
credential = "person"
max_connections = 4
[routes.lan]
path = "/lan"
upstream = "http://192.0.2.1"
unsafe_plaintext = true
credential = "orders"
"""
SPAN = 90
WIDTH, ROW, GAP = 1600, 30, 8
COLORS = "#73bf69 #f2cc0c #8ab8ff #ff780a #f2495c #5794f2 #b877d9 #705da0 #37872d #fade2a #96d98d #ffb357".split()
NAMED = {"green": "#37872d", "orange": "#e0752d", "red": "#c4162a"}


def number(value, unit):
    """As Grafana writes it."""
    if unit == "s":
        for name, size in (("days", 86400), ("hours", 3600), ("mins", 60)):
            if abs(value) >= size:
                return f"{value / size:.3g} {name}"
        return f"{value * 1000:.3g} ms" if 0 < abs(value) < 1 else f"{value:.3g} s"
    if unit == "percentunit":
        return f"{value * 100:.3g}%"
    steps = (1024, ["B", "KiB", "MiB", "GiB"]) if unit == "bytes" else (1000, ["", "K", "Mil", "Bil"])
    at = min(int(math.log(abs(value), steps[0])), 3) if abs(value) >= steps[0] else 0
    word = {"reqps": "req/s", "cps": "c/s"}.get(unit, "")
    return f"{value / steps[0] ** at:.3g} {steps[1][at]}{word}".strip()


def ask(server, kind, **what):
    answer = json.loads(get(f"{server}/api/v1/{kind}?{urllib.parse.urlencode(what)}")[1])
    assert answer["status"] == "success", answer
    return answer["data"]["result"]


def series(server, panel, begin, end):
    """Each series of a panel: its name and its points."""
    for target in panel.get("targets", []):
        expression = target["expr"].replace("$__rate_interval", "10s")
        for name in ("job", "instance", "credential", "route"):
            expression = expression.replace(f"${name}", ".*")
        if target.get("instant"):
            found = ask(server, "query", query=expression, time=end)
        else:
            found = ask(server, "query_range", query=expression, start=begin, end=end, step=1)
        for each in found:
            name = target.get("legendFormat") or json.dumps(each["metric"])
            for label, value in each["metric"].items():
                name = name.replace("{{%s}}" % label, value)
            points = [(float(at), float(value)) for at, value in each.get("values", [each.get("value")])]
            yield name, each["metric"], [(at, value) for at, value in points if math.isfinite(value)]


def unit_of(panel, name):
    field = panel["fieldConfig"]
    for override in field["overrides"]:
        if override["matcher"]["options"].strip(".* ") in name:
            return next(p["value"] for p in override["properties"] if p["id"] == "unit")
    return field["defaults"]["unit"]


def stat(panel, found, w, h):
    if not found:
        return '<div class="none">No data</div>'
    name, _, points = found[0]
    value, defaults = points[-1][1], panel["fieldConfig"]["defaults"]
    color = [step["color"] for step in defaults["thresholds"]["steps"] if step["value"] is None or value >= step["value"]][-1]
    named = panel["options"]["textMode"] == "name"
    text = ", ".join(each[0] for each in found) if named else number(value, defaults["unit"])
    back = "" if panel["options"]["colorMode"] == "none" else f"background:{NAMED.get(color, color)}"
    return f'<div class="stat" style="{back};height:{h - 34}px">{html.escape(text)}</div>'


def table(_panel, found, w, h):
    rows = "".join(f"<tr><td>{html.escape(m.get('instance', ''))}<td>{html.escape(m.get('key', ''))}" for _, m, _ in found)
    return f"<table><tr><th>instance<th>key{rows}</table>" if found else '<div class="none">No data</div>'


def timeseries(panel, found, w, h, begin, end):
    found = [each for each in found if each[2]]
    if not found:
        return '<div class="none">No data</div>'
    legend = "".join(
        f'<span><i style="background:{COLORS[at % len(COLORS)]}"></i>{html.escape(name)}</span>'
        for at, (name, _, _) in enumerate(found)
    )
    left, bottom, height = 64, 22, h - 34 - 58
    sides = {}
    for name, _, points in found:
        sides.setdefault(unit_of(panel, name), []).extend(value for _, value in points)
    right = 64 if len(sides) > 1 else 8
    parts = []
    for side, (unit, values) in enumerate(sides.items()):
        low, high = min(0, *values), 1 if unit == "percentunit" else max(values) or 1
        step = 10 ** math.floor(math.log10((high - low) / 3))
        step *= next(by for by in (1, 2, 5, 10) if (high - low) / step / by <= 5)
        high = math.ceil(high / step - 1e-9) * step
        y = lambda value: (height - bottom) * (1 - (value - low) / (high - low))  # noqa: E731
        x = lambda at: left + (w - left - right) * (at - begin) / (end - begin)  # noqa: E731
        tick = math.ceil(low / step) * step
        while tick <= high + step / 2:
            place = y(tick)
            if side == 0:
                parts.append(f'<line x1={left} x2={w - right} y1={place} y2={place} stroke="#333" />')
            at, anchor = (left - 6, "end") if side == 0 else (w - right + 6, "start")
            parts.append(f'<text x={at} y={place + 4} text-anchor={anchor}>{number(round(tick, 9), unit)}</text>')
            tick += step
        for at, (name, _, points) in enumerate(found):
            if unit_of(panel, name) == unit:
                color = COLORS[at % len(COLORS)]
                for (when, value), (then, before) in zip(points[1:], points):
                    if when - then < 1.5:  # else nothing was there in between
                        ends = f"x1={x(then):.1f} y1={y(before):.1f} x2={x(when):.1f} y2={y(value):.1f}"
                        parts.append(f'<line {ends} stroke="{color}" stroke-width=1.5 />')
    for at in range(int(begin) + 15, int(end), 15):
        shown = time.strftime("%H:%M:%S", time.gmtime(at))
        parts.append(f'<text x={x(at)} y={height - 4} text-anchor=middle>{shown}</text>')
    return f'<svg width={w} height={height} style="overflow:visible">{"".join(parts)}</svg><div class="legend">{legend}</div>'


def page(server, begin, end):
    """The whole dashboard as one HTML page, and its height."""
    column, parts, below = (WIDTH - GAP) / 24, [], 0
    for panel in dashboard()["panels"]:
        place = panel["gridPos"]
        w, h = place["w"] * column - GAP, place["h"] * (ROW + GAP) - GAP
        where = f"left:{GAP + place['x'] * column}px;top:{GAP + place['y'] * (ROW + GAP)}px;width:{w}px;height:{h}px"
        below = max(below, GAP * 2 + place["y"] * (ROW + GAP) + h)
        title = html.escape(panel["title"])
        if panel["type"] == "row":
            parts.append(f'<h2 style="{where}">⌄ {title}</h2>')
            continue
        found = list(series(server, panel, begin, end))
        draw = {"stat": stat, "table": table, "timeseries": timeseries}[panel["type"]]
        inside = draw(panel, found, w - 16, h, *((begin, end) if draw is timeseries else ()))
        about = ' <b title="description">(i)</b>' if panel.get("description") else ""
        parts.append(f'<section style="{where}"><h3>{title}{about}</h3>{inside}</section>')
    style = (ROOT / "tests" / "e2e" / "ops_checks" / "picture.css").read_text()
    return f"<!doctype html><meta charset=utf-8><style>{style}</style>{''.join(parts)}", int(below)


def trouble(proxy, file, stop):
    """Requests of all kinds, and a configuration that breaks for a while."""
    begun, good = time.monotonic(), file.read_text()
    while not stop.wait(0.04):
        for path in ("/", "/revoked", "/refused", "/person", "/nowhere/../x"):
            with contextlib.suppress(OSError):
                get(f"http://{proxy}{path}")
        wanted = good + "[nonsense]\n" * (40 < time.monotonic() - begun < 50)
        if file.read_text() != wanted:
            file.with_suffix(".new").write_text(wanted)
            file.with_suffix(".new").rename(file)


def draw():
    browser = tools.debian("chromium")
    out = ROOT / ".cache" / "dashboard.png"
    with tempfile.TemporaryDirectory() as folder, peers() as port:
        file = pathlib.Path(folder, "attache.toml")
        file.write_text((CONFIG + MORE).format(port=port, folder=folder))
        with running(file=file, lasts=SPAN + 60) as (proxy, admin), prometheus(admin) as server:
            until("attaché is ready", lambda: get(f"http://{admin}/readyz")[0] == 200)
            stop = threading.Event()
            caller = threading.Thread(target=trouble, args=(proxy, file, stop))
            caller.start()
            try:
                time.sleep(SPAN)
            finally:
                stop.set()
                caller.join()
            text, height = page(server, time.time() - SPAN + 5, time.time())
        shown = pathlib.Path(folder, "dashboard.html")
        shown.write_text(text)
        subprocess.run(
            [browser / "usr/lib/chromium/chromium", "--headless", "--no-sandbox", "--disable-gpu", "--no-first-run",
             "--disable-dev-shm-usage", "--no-proxy-server", "--hide-scrollbars", f"--user-data-dir={folder}/profile",
             f"--window-size={WIDTH},{height}", f"--screenshot={out}", shown.as_uri()],
            env={**tools.environment(browser), "HOME": folder}, check=True, capture_output=True, timeout=120,
        )
    print(f"drawn to {out.relative_to(ROOT)}")
