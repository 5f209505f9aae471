"""`muxly doctor`: what a person would check by hand, and what to do about what is wrong."""

import os
from dataclasses import asdict, replace

import typer

from muxly_dagster.assembly import load_assembly
from muxly_dagster.cli import terminal
from muxly_dagster.diagnosing import Finding, Subject, diagnose, installation
from muxly_dagster.diagnosing.finding import failed
from muxly_dagster.errors import MuxlyError
from muxly_dagster.runtime import Runtime
from muxly_dagster.serving import home, processes
from muxly_dagster.settings import Settings

_PORTS = {"Dagster UI": processes.DEFAULT_WEB_PORT, "API": processes.DEFAULT_API_PORT}


def doctor(*, offline: bool, json: bool) -> None:
    """Run every check, print all results, exit with 1 if one failed."""
    findings = _found(offline)
    if json:
        terminal.print_json([asdict(finding) for finding in findings])
    else:
        terminal.print_checks((finding.check, finding.status, finding.what, finding.do) for finding in findings)
    if any(finding.status == "failed" for finding in findings):
        raise typer.Exit(1)


def _found(offline: bool) -> list[Finding]:
    try:
        settings = Settings.from_environ(os.environ)
        folder = home.dagster_home(settings.home, os.environ)
    except MuxlyError as error:
        return [*installation.look(), failed("project", error)]
    subject = Subject(settings, os.environ, folder, ports=_PORTS, offline=offline)
    try:
        assembly = load_assembly(settings.project, os.environ, home=settings.home, ask="never" if offline else "once")
    except MuxlyError as error:
        return diagnose(replace(subject, trouble=error))
    try:
        runtime = Runtime.of(settings, assembly)
    except MuxlyError:
        return diagnose(replace(subject, declared=assembly))  # the check of the state database says why
    with runtime:
        return diagnose(replace(subject, runtime=runtime))
