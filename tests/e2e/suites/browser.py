"""A web page in a browser on this machine reaches neither port: by cross-origin requests, and by DNS rebinding.

1. Headless Chromium opens a page of a foreign origin, which tries everything that a page can send to both ports.
2. It opens pages whose own name and port lead to attaché from then on: to the browser and to attaché that is DNS rebinding. The
   page is served by a front that afterwards passes the browser's bytes on to attaché.
3. The same page against a server without a guard shows that the attempts are real.
"""

import asyncio
import json

from support import tools
from support.fakes import SECRET, FakeProvider, config
from support.http import Server, get
from support.process import Process, Sidecar
from support.report import Check

TREASURE = b"treasure of the upstream"

PAGE = """<!doctype html><body><script>
const targets = %s, label = %s, results = [];
const settle = (name, promise) =>
  Promise.race([promise, new Promise((_, no) => setTimeout(() => no("timeout"), 4000))])
    .then((got) => results.push([name, "read", String(got)]), (error) => results.push([name, "failed", String(error)]));
const element = (tag, key, url, more = {}) => new Promise((yes, no) => {
  const made = Object.assign(document.createElement(tag), more);
  made.onload = () => yes("loaded"); made.onerror = () => no("error");
  made[key] = url; document.body.append(made);
});
const form = (url) => new Promise((yes) => {
  const frame = Object.assign(document.createElement("iframe"), { name: "f" + Math.random() });
  const made = Object.assign(document.createElement("form"), { method: "POST", action: url, target: frame.name });
  document.body.append(frame, made); frame.onload = () => yes("submitted"); made.submit();
});
const text = (promise) => promise.then((answer) => answer.type === "opaque" ? "opaque" : answer.text());
const attempts = {
  "fetch": (url) => text(fetch(url)),
  "fetch no-cors": (url) => text(fetch(url, { mode: "no-cors" })),
  "fetch POST": (url) => text(fetch(url, { method: "POST", mode: "no-cors", body: "x" })),
  "fetch PUT": (url) => text(fetch(url, { method: "PUT", body: "x" })),
  "fetch DELETE": (url) => text(fetch(url, { method: "DELETE" })),
  "fetch with a header": (url) => text(fetch(url, { headers: { "x-custom": "1" } })),
  "fetch without referrer": (url) => text(fetch(url, { mode: "no-cors", referrerPolicy: "no-referrer" })),
  "beacon": (url) => Promise.resolve(navigator.sendBeacon(url, "x")),
  "image": (url) => element("img", "src", url),
  "script": (url) => element("script", "src", url),
  "stylesheet": (url) => element("link", "href", url, { rel: "stylesheet" }),
  "iframe": (url) => element("iframe", "src", url),
  "iframe without origin": (url) => element("iframe", "srcdoc", `<script>fetch(${JSON.stringify(url)}, {method: "POST", mode: "no-cors"})<` + `/script>`, { sandbox: "allow-scripts" }),
  "form": (url) => form(url),
  "XMLHttpRequest": (url) => new Promise((yes, no) => { const x = new XMLHttpRequest(); x.open("GET", url); x.onload = () => yes(x.responseText); x.onerror = () => no("error"); x.send(); }),
  "event source": (url) => new Promise((yes, no) => { const e = new EventSource(url); e.onopen = () => yes("open"); e.onerror = () => { e.close(); no("error"); }; }),
  "web socket": (url) => new Promise((yes, no) => { const w = new WebSocket(url.replace("http", "ws")); w.onopen = () => yes("open"); w.onerror = () => no("error"); }),
};
(async () => {
  for (const target of targets)
    for (const [name, attempt] of Object.entries(attempts))
      await settle(`${name} ${target.replace(/^http:..[^/]*/, "")}`, (async () => attempt(target + (target.includes("?") ? "&" : "?") + "by=" + encodeURIComponent(name)))());
  await fetch(%s, { method: "POST", mode: "no-cors", body: JSON.stringify({ label, results }) });
})();
</script>"""


class Front:
    """The attacker's server: a page first, and from then on, if `after` is given, a wire to that address."""

    def __init__(self, after=None):
        self.after, self.page, self.served, self.passed = after, b"", False, 0

    async def start(self, check: Check) -> "Front":
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]
        check.at_end(self.stop)
        return self

    async def stop(self) -> None:
        self._server.close()

    async def _serve(self, reader, writer) -> None:
        try:
            if self.served and self.after:
                self.passed += 1
                there, out = await asyncio.open_connection(*self.after)
                await asyncio.gather(_pipe(reader, out), _pipe(there, writer))
                return
            head = await reader.readuntil(b"\r\n\r\n")
            if head.startswith(b"GET / "):
                self.served = True
                body = self.page
                kind = "200 OK\r\ncontent-type: text/html"
            else:
                body, kind = b"", "404 Not Found"
            writer.write(f"HTTP/1.1 {kind}\r\ncontent-length: {len(body)}\r\nconnection: close\r\n\r\n".encode() + body)
            await writer.drain()
        except (OSError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.close()


async def _pipe(reader, writer) -> None:
    try:
        while part := await reader.read(1 << 16):
            writer.write(part)
            await writer.drain()
    except OSError:
        pass
    finally:
        writer.close()


async def main(check: Check) -> None:
    root = tools.debian("chromium")
    check.secret("client secret", SECRET)
    provider = await FakeProvider(check).start()
    reached: list[str] = []

    async def answer(request):
        reached.append(f"{request.method} {request.target}")
        return 200, {"content-type": "text/plain"}, TREASURE

    upstream = await Server(answer).start(check)
    unguarded: list[str] = []

    async def naive(request):
        unguarded.append(f"{request.method} {request.target}")
        return 200, {"content-type": "text/plain"}, TREASURE

    control = await Server(naive).start(check)
    reports: asyncio.Queue = asyncio.Queue()

    async def report(request):
        if request.method == "POST":
            reports.put_nowait(json.loads(request.body))
        return 204, {}, b""

    listener = await Server(report).start(check)
    sidecar = await Sidecar.run(check, config(provider.server.url, upstream.url), {"CLIENT_SECRET": SECRET})
    while (await get(sidecar.admin, "/readyz")).status != 200:
        await asyncio.sleep(0.05)
    check.that((await get(sidecar.proxy, "/")).body == TREASURE, "without a browser, the request passes")
    reached.clear()

    proxy, admin = (f"http://127.0.0.1:{port}" for _, port in (sidecar.proxy, sidecar.admin))
    foreign = await Front().start(check)
    by_proxy = await Front(sidecar.proxy).start(check)
    by_admin = await Front(sidecar.admin).start(check)
    by_control = await Front(control.address[:2]).start(check)
    # The names of the attacker. In a rebinding attack page and target have one name and one port: those of attaché.
    names = {
        "foreign.test": (8000, foreign, [f"{proxy}/orders", f"{admin}/status", f"{admin}/metrics"]),
        "proxy.test": (sidecar.proxy[1], by_proxy, ["/orders"]),
        "admin.test": (sidecar.admin[1], by_admin, ["/status", "/metrics"]),
        "control.test": (control.address[1], by_control, ["/orders", f"{control.url}/orders"]),
    }
    rules = ",".join(f"MAP {name}:{port} 127.0.0.1:{front.port}" for name, (port, front, _) in names.items())
    for name, (port, front, targets) in names.items():
        full = [target if target.startswith("http") else f"http://{name}:{port}{target}" for target in targets]
        front.page = (PAGE % (json.dumps(full), json.dumps(name), json.dumps(f"{listener.url}/report"))).encode()

    results = {}
    for name, (port, front, _) in names.items():
        browser = await Process(check, f"chromium for {name}").start(
            root / "usr/lib/chromium/chromium", "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic",
            "--no-first-run", "--disable-background-networking", "--disable-component-update", "--disable-sync",
            "--disable-dev-shm-usage", "--no-proxy-server", f"--user-data-dir={check.folder}/{name}",
            f"--host-resolver-rules={rules}", f"http://{name}:{port}/",
            env={**tools.environment(root), "HOME": str(check.folder)},
        )  # fmt: skip
        try:
            results[name] = (await asyncio.wait_for(reports.get(), 90))["results"]
        except TimeoutError:
            check.that(False, f"the page of {name} reports; Chromium said: {browser.text()[-1500:]}")
            continue
        finally:
            await browser.kill()

    attempts = len(results.get("control.test", []))
    check.that(len(unguarded) > attempts // 2, f"without a guard, {attempts} attempts made {len(unguarded)} requests arrive")
    read = [result for result in results.get("control.test", []) if TREASURE.decode() in result[2]]
    check.that(bool(read), f"and {len(read)} of them read the answer")
    for name in ("foreign.test", "proxy.test", "admin.test"):
        tried = results.get(name, [])
        secrets = [TREASURE.decode(), "attache_", '"credentials"', '"routes"']
        read = [result for result in tried if any(secret in result[2] for secret in secrets)]
        check.that(bool(tried) and not read, f"{name}: {len(tried)} attempts, {len(read)} could read anything {read[:2] or ''}")
        opened = [result for result in tried if result[0].startswith(("web socket", "event source")) and result[1] == "read"]
        check.that(not opened, f"{name}: {len(opened)} streams opened")
    check.that(by_proxy.passed > 0 and by_admin.passed > 0, "the rebound pages did talk to attaché")
    check.that(not reached, f"{len(reached)} requests reached the upstream {reached[:5] or ''}")
    check.that((await get(sidecar.proxy, "/")).status == 200, "without a browser, the request still passes")
    check.that(await sidecar.stop() == 0, "exit code 0 after SIGTERM")
