"""Makes all checks, or with `--write` brings the generated parts up to date.

With `--picture` it draws the dashboard. With `--strict`, as before a release, it also fails when documents, chart or dashboard
are behind the code."""

import sys

from . import abuse, compose, docs, examples, helm, kubernetes, live, picture, prometheus, reload, restart, systemd, workflows
from .report import counts

if sys.argv[1:] == ["--write"]:
    helm.write()
    sys.exit(0)
if sys.argv[1:] == ["--picture"]:
    picture.draw()
    sys.exit(0)
if sys.argv[1:] not in ([], ["--strict"]):
    sys.exit("usage: tests/e2e/ops [--write | --picture | --strict]")

for part in (kubernetes, helm, prometheus, live, reload, restart, abuse, systemd, compose, workflows, examples, docs):
    part.checks()
print(f"result: {counts['ok']} passed, {counts['FAILED']} failed, {counts['SKIPPED']} skipped, {counts['BEHIND']} behind")
sys.exit(1 if counts["FAILED"] or (sys.argv[1:] and counts["BEHIND"]) else 0)
