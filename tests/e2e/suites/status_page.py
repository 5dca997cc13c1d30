"""`/status` as people see it, in headless Chromium: routes, credentials whose bar moves, the last error, own answers by reason.

The page is also drawn into a picture, .cache/status.png, for whoever wants to look at it.
"""

import asyncio
import re
import shutil

from support import tools
from support.fakes import SECRET, FakeProvider, FakeUpstream, config
from support.http import Connection, Server, get
from support.process import Process, Sidecar
from support.report import Check, Failed

LIFETIME = 600

MORE = """
[credentials.refused]
type = "client_credentials"
token_endpoint = "{refusing}/token"
client_id = "e2e"
client_secret = {{ env = "CLIENT_SECRET" }}
required = false
token_wait = "50ms"

[routes.refused]
path = "/refused"
upstream = "{upstream}"
credential = "refused"
"""


async def main(check: Check) -> None:
    root = tools.debian("chromium")
    check.secret("client secret", SECRET)
    provider = await FakeProvider(check, LIFETIME).start()
    upstream = await FakeUpstream(check, provider).start()

    async def refuse(_request):
        return 401, {"content-type": "application/json"}, b'{"error":"invalid_client"}'

    refusing = await Server(refuse).start(check)
    settings = config(provider.server.url, upstream.server.url)
    settings += MORE.format(refusing=refusing.url, upstream=upstream.server.url)
    sidecar = await Sidecar.run(check, settings, {"CLIENT_SECRET": SECRET})
    while (await get(sidecar.admin, "/readyz")).status != 200:
        await asyncio.sleep(0.02)
    for _ in range(3):
        await get(sidecar.proxy, "/refused")
    connection = await Connection.open(sidecar.proxy, "foreign.example")
    await connection.request("GET", "/")
    connection.close()
    status = (await get(sidecar.admin, "/status")).json()
    check.that([route["name"] for route in status["routes"]] == ["main", "refused"], "the JSON names the routes")

    page = f"http://127.0.0.1:{sidecar.admin[1]}/status"
    now = await draw(check, root, page, 100, "--dump-dom")
    later = await draw(check, root, page, 20_100, "--dump-dom")
    check.seen("the page", now)
    for what, part in {
        "it is ready": '<span class="good">ready</span>',
        "both routes": f"<td>/refused</td><td>{upstream.server.url}</td><td>refused</td>",
        "the credential is fresh": '<td class="good">fresh</td>',
        "the last error": "invalid_client",
        "own answers by reason": "<td>token_unavailable</td><td>3 <svg",
        "own answers without a route": "<td>foreign_host</td><td>1 <svg",
    }.items():
        check.that(part in now, f"the page shows {what}: {part}")
    bars = [[int(number) for number in re.findall(r'<progress value="(\d+)" max="(\d+)"', dom)[0]] for dom in (now, later)]
    (left, whole), (left_later, _) = bars
    check.that(whole == LIFETIME and LIFETIME - 60 < left <= LIFETIME, f"the bar stands at {left} of {whole} s")
    # Chromium's time runs ahead here, the server's does not: only the page itself can have moved the bar.
    check.that(15 <= left - left_later <= 40, f"20 s later it stands at {left_later}, without a request")
    next_now, next_later = (int(re.findall(r"<b>(\d+)</b> s</td>", dom)[0]) for dom in (now, later))
    check.that(next_later < next_now, f"and so does the next attempt: {next_now} s, {next_later} s")
    check.that(SECRET not in now, "no secret on the page")
    for theme in ("light", "dark"):
        picture = check.folder / f"{theme}.png"
        dark = ["--force-dark-mode", "--blink-settings=preferredColorScheme=0"] if theme == "dark" else []
        await draw(check, root, page, 100, f"--screenshot={picture}", "--window-size=1100,800", *dark)
        check.that(picture.exists() and picture.stat().st_size > 10_000, f"it is drawn, {theme}")
        shutil.copy(picture, tools.CACHE / f"status-{theme}.png")
    check.that(await sidecar.stop() == 0, "exit code 0 after SIGTERM")


async def draw(check: Check, root, page: str, milliseconds: int, *how: str) -> str:
    """Opens the page, lets so much of Chromium's own time pass, and gives what it prints."""
    browser = await Process(check, "chromium").start(
        root / "usr/lib/chromium/chromium", "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
        "--disable-background-networking", "--disable-component-update", "--disable-sync", "--disable-dev-shm-usage",
        "--no-proxy-server", f"--user-data-dir={check.folder}/profile", f"--virtual-time-budget={milliseconds}", *how, page,
        env={**tools.environment(root), "HOME": str(check.folder)},
    )  # fmt: skip
    try:
        await browser.ended(60)
    except Failed:
        raise Failed(f"Chromium does not end: {browser.text()[-1500:]}") from None
    return browser.text()
