"""Everything a person would check by hand, as JSON and as a page: what `muxly doctor` says, from where the API runs."""

import datetime as dt
import html
from collections import Counter
from typing import Annotated, Literal

from fastapi import APIRouter, Query, Request, Response
from fastapi.responses import HTMLResponse
from pydantic import BaseModel, Field

from muxly_dagster.api.guard import admin
from muxly_dagster.api.problems import ApiError
from muxly_dagster.api.service import Service, service_of
from muxly_dagster.diagnosing import Finding, Subject, diagnose
from muxly_dagster.serving.home import dagster_home

router = APIRouter(tags=["Diagnostics"])
page = APIRouter(include_in_schema=False)
"""The page, which asks a browser for the token in a way that it understands."""

Status = Literal["ok", "warning", "failed", "skipped"]

_NO_FOREIGN_ASSETS = {
    "content-security-policy": "default-src 'none'; style-src 'unsafe-inline'; frame-ancestors 'none'; base-uri 'none'",
    "cache-control": "no-store",
    "referrer-policy": "no-referrer",
    "x-content-type-options": "nosniff",
}


class CheckFound(BaseModel):
    """What one check found."""

    check: str = Field(description="What was looked at.", examples=["state database"])
    status: Status = Field(description="`skipped` where there was nothing to look at.", examples=["ok"])
    what: str = Field("", description="What was found.", examples=["sqlite:////srv/muxly/.muxly/state.db, migration 0006"])
    do: str = Field("", description="What to do, where something is wrong.", examples=[""])


class Diagnosis(BaseModel):
    """All checks. `status` is the worst of them; what was skipped does not count."""

    status: Literal["ok", "warning", "failed"] = Field(examples=["ok"])
    at: dt.datetime = Field(description="When it was looked.", examples=["2026-01-05T12:00:00Z"])
    checks: list[CheckFound]


Offline = Annotated[bool, Query(description="Do not try the sources and destinations.")]


@router.get("/v1/diagnostics", operation_id="get_diagnostics", summary="Check everything a person would check by hand")
def get_diagnostics(request: Request, offline: Offline = False) -> Diagnosis:
    """Versions, folders, databases, lake, clock, secrets, each source and destination, Dagster and its daemon, and how work stands.

    It takes as long as the slowest source, 30 seconds at most. Nothing in it is secret.
    """
    return _diagnosis(service_of(request), offline)


@page.get("/diagnostics")
def diagnostics_page(request: Request, offline: bool = False) -> Response:
    """The same as a page."""
    try:
        admin(request)
    except ApiError as error:
        if error.problem.status == 401:
            # A browser asks for a user name and a password; the token is the password, whatever the name.
            error.headers["www-authenticate"] = 'Basic realm="muxly", charset="UTF-8"'
        raise
    return HTMLResponse(_page(_diagnosis(service_of(request), offline), offline), headers=_NO_FOREIGN_ASSETS)


def _diagnosis(service: Service, offline: bool) -> Diagnosis:
    project = service.project
    subject = Subject(
        project.settings,
        service.environ,
        dagster_home(project.settings.home, service.environ),
        runtime=service.runtime,
        trouble=project.trouble,
        offline=offline,
    )
    findings = diagnose(subject)
    return Diagnosis(status=_worst(findings), at=dt.datetime.now(dt.UTC), checks=[_shown(finding) for finding in findings])


def _shown(finding: Finding) -> CheckFound:
    return CheckFound(check=finding.check, status=finding.status, what=finding.what, do=finding.do)


def _worst(findings: list[Finding]) -> Literal["ok", "warning", "failed"]:
    found = {finding.status for finding in findings}
    return "failed" if "failed" in found else "warning" if "warning" in found else "ok"


# ---- the page ----------------------------------------------------------------------------------------------------------

_STYLE = """
:root { color-scheme: light dark; --text: #1c2024; --soft: #60646c; --line: #e4e6ea; --page: #fcfcfd; --card: #fff;
  --ok: #18794e; --warning: #ad5700; --failed: #cd2b31; --skipped: #80838d }
@media (prefers-color-scheme: dark) { :root { --text: #edeef0; --soft: #b0b4ba; --line: #2e3135; --page: #111113; --card: #18191b;
  --ok: #3dd68c; --warning: #ffa057; --failed: #ff9592; --skipped: #777b84 } }
* { box-sizing: border-box }
body { margin: 0; padding: 2.5rem 1.25rem; background: var(--page); color: var(--text);
  font: 16px/1.5 system-ui, -apple-system, "Segoe UI", sans-serif }
main { max-width: 60rem; margin: 0 auto }
h1 { margin: 0; font-size: 1.6rem; letter-spacing: -.01em }
header p { margin: .35rem 0 1.75rem; color: var(--soft) }
ol { list-style: none; margin: 0; padding: 0; background: var(--card); border: 1px solid var(--line);
  border-radius: .75rem; overflow: hidden }
li { display: grid; grid-template-columns: 6.5rem 13rem 1fr; gap: .25rem 1rem; padding: .7rem 1.1rem; border-top: 1px solid var(--line) }
li:first-child { border-top: 0 }
b { font-weight: 600; font-size: .9rem } b::before { content: "\\25CF"; margin-right: .5rem; font-size: .8rem }
.ok b { color: var(--ok) } .warning b { color: var(--warning) } .failed b { color: var(--failed) } .skipped b { color: var(--skipped) }
.what { overflow-wrap: anywhere; white-space: pre-line } .do { grid-column: 3; color: var(--soft); overflow-wrap: anywhere }
.do::before { content: "\\2192\\00A0" }
footer { margin-top: 1.25rem; color: var(--soft); font-size: .9rem } a { color: inherit }
@media (max-width: 46rem) { li { grid-template-columns: 6.5rem 1fr } .what, .do { grid-column: 1 / -1 } }
"""

_HEADLINES = {"ok": "Everything is well", "warning": "It works, and something needs a look", "failed": "Something is wrong"}


def _page(diagnosis: Diagnosis, offline: bool) -> str:
    counts = Counter(check.status for check in diagnosis.checks)
    told = ", ".join(f"{counts[status]} {status}" for status in ("failed", "warning", "ok", "skipped") if counts[status])
    rows = "\n".join(_row(check) for check in diagnosis.checks)
    other = '<a href="/diagnostics">try them too</a>' if offline else '<a href="/diagnostics?offline=true">leave them alone</a>'
    return f"""<!doctype html>
<html lang="en">
<head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">
<title>{_HEADLINES[diagnosis.status]} · Muxly</title><style>{_STYLE}</style></head>
<body><main>
<header><h1>{_HEADLINES[diagnosis.status]}</h1><p>{told} · {diagnosis.at:%Y-%m-%d %H:%M:%S} UTC</p></header>
<ol>
{rows}
</ol>
<footer>Sources and destinations were {"not " if offline else ""}tried: {other}. As JSON: <a href="/v1/diagnostics">/v1/diagnostics</a>;
on this machine: <code>muxly doctor</code>.</footer>
</main></body></html>
"""


def _row(check: CheckFound) -> str:
    name, what, do = (html.escape(text) for text in (check.check, check.what, check.do))
    next_step = f'<span class="do">{do}</span>' if do else ""
    return f'<li class="{check.status}"><b>{check.status}</b><span>{name}</span><span class="what">{what}</span>{next_step}</li>'
