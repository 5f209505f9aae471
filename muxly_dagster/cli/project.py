"""Commands about the project itself: init, check, schema."""

import os
from collections.abc import Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from importlib import resources
from importlib.resources.abc import Traversable
from pathlib import Path

import typer

from muxly_dagster.assembly import Assembly, Pull, load_assembly
from muxly_dagster.catalog import connector_names
from muxly_dagster.cli import opening, plugged, terminal
from muxly_dagster.cli.beginning import project_files, variables
from muxly_dagster.connector import Connector
from muxly_dagster.errors import ConfigurationError, Problem
from muxly_dagster.plugins import NONE, Plugins
from muxly_dagster.project.checks import did_you_mean
from muxly_dagster.resource import CheckResult
from muxly_dagster.settings import PROJECT_FILES
from muxly_dagster.state.jobs import made_jobs
from muxly_dagster.trying import check_pull, try_out

_MOST_NAMES = 20


def init(folder: Path, template: str) -> None:
    """Write the template's files into the folder. Raises ConfigurationError where a project is already there."""
    templates = {entry.name: entry for entry in (resources.files("muxly_dagster.cli") / "templates").iterdir() if entry.is_dir()}
    if template not in templates and template not in connector_names():
        raise ConfigurationError(f"there is no template {template}", do=did_you_mean(template, [*templates, *connector_names()]))
    existing = [name for name in PROJECT_FILES if (folder / name).exists()]
    if existing:
        raise ConfigurationError(f"{folder / existing[0]} is there already", do="choose another folder, or edit the project you have")
    if folder.exists() and not folder.is_dir():
        raise ConfigurationError(f"{folder} is a file", do="name a folder")
    files = dict(sorted(_files(templates[template]) if template in templates else project_files(template).items()))
    for path, content in files.items():
        target = folder / path
        target.parent.mkdir(parents=True, exist_ok=True)
        if not target.exists():
            target.write_text(content, encoding="utf-8")
            terminal.say(f"wrote {target}")
    schema_file = folder / ".muxly" / "schema.json"
    schema_file.parent.mkdir(exist_ok=True)
    schema_file.write_text(_schema(NONE), encoding="utf-8")
    steps = [] if folder.resolve() == Path.cwd() else [f"cd {folder}"]
    needs = variables(files["muxly.yaml"])
    steps += [f"set {' and '.join(needs)}"] if needs else []
    terminal.say(f"next: {'; '.join([*steps, 'muxly check', 'muxly run everything'])}")


def _files(folder: Traversable, at: str = "") -> list[tuple[str, str]]:
    found: list[tuple[str, str]] = []
    for entry in folder.iterdir():
        name = f"{at}{entry.name}"
        found += _files(entry, f"{name}/") if entry.is_dir() else [(name, entry.read_text(encoding="utf-8"))]
    return found


def check(*, offline: bool, json: bool) -> None:
    """Load and check the project; then try every source, pull and destination, all at once."""
    settings = opening.settings()
    made = made_jobs(settings.database_url, settings.home)
    try:
        assembly = load_assembly(settings.project, os.environ, home=settings.home, ask="never" if offline else "always", made=made)
    except ConfigurationError as error:
        if not json:
            raise
        found = [_as_dict(problem) for problem in error.problems]
        terminal.print_json({"status": "failed", "problems": found, "warnings": [], "news": [], "connections": []})
        raise typer.Exit(error.exit_code) from None
    for warning in assembly.warnings:
        terminal.say(f"warning: {warning}")
    for news in assembly.news:
        terminal.say(news)
    results: dict[str, CheckResult] = {}
    if not offline:
        with opening.state_of(assembly) as open_project:
            results = _try_all(open_project)
    failed = any(result.status == "failed" for result in results.values())
    if json:
        connections = [{"name": n, "status": r.status, "tried": r.tried, "what": r.what, "do": r.do} for n, r in results.items()]
        status = "failed" if failed else "ok"
        warnings = [_as_dict(warning) for warning in assembly.warnings]
        terminal.print_json(
            {"status": status, "problems": [], "warnings": warnings, "news": list(assembly.news), "connections": connections}
            | _contents(assembly)
        )
    else:
        _tell(settings.project, assembly, results, offline=offline)
    if failed:
        raise typer.Exit(1)


def _as_dict(problem: Problem) -> dict[str, str | int]:
    return {name: getattr(problem, name) for name in ("file", "line", "column", "path", "what", "do")}


def _contents(assembly: Assembly) -> dict[str, list[str]]:
    return {
        "pulls": list(assembly.pulls),
        "transforms": list(assembly.transforms),
        "deliveries": list(assembly.targets),
        "jobs": list(assembly.jobs),
    }


def _tell(project: Path, assembly: Assembly, results: Mapping[str, CheckResult], *, offline: bool) -> None:
    terminal.out.print(f"{project}: no mistakes found", markup=False)
    for kind, names in _contents(assembly).items():
        if names:
            more = f" and {len(names) - _MOST_NAMES} more" if len(names) > _MOST_NAMES else ""
            terminal.out.print(f"  {kind}: {', '.join(names[:_MOST_NAMES])}{more}", markup=False)
    if offline:
        terminal.say("sources and destinations were not tried (--offline)")
    else:
        found = ((name, r.status, f"{r.tried}: {r.what}" if r.what else r.tried, r.do) for name, r in results.items())
        terminal.print_checks(found)


def _try_all(assembly: Assembly) -> dict[str, CheckResult]:
    with ThreadPoolExecutor(8) as pool:
        # Before any pull, so that none waits for a source which in turn waits for its place.
        sources = {name: pool.submit(try_out, source) for name, source in assembly.sources.items()}
        destinations = {name: pool.submit(try_out, destination) for name, destination in assembly.destinations.items()}
        looked_at = [(name, pull) for name, pull in assembly.pulls.items() if _looks_at_pulls(pull.connector)]
        pulls = {name: pool.submit(_check_behind, sources[pull.source], pull) for name, pull in looked_at}
    results = {f"source {name}": future.result() for name, future in sources.items()}
    results |= {f"pull {name}": result for name, future in pulls.items() if (result := future.result())}
    return results | {f"destination {name}": future.result() for name, future in destinations.items()}


def _check_behind(source: Future[CheckResult], pull: Pull) -> CheckResult | None:
    """What the provider finds wrong with a pull; None where its source has failed already, which would be said once more for each pull."""
    return check_pull(pull) if source.result().status == "ok" else None


def _looks_at_pulls(connector: Connector) -> bool:
    """Whether asking about a pull says more than asking about its source."""
    return type(connector).check_pull is not Connector.check_pull


def schema() -> None:
    """Print the JSON Schema, with the plugins of the project where there is one."""
    terminal.print_text(_schema(plugged.plugins()[0]))


def _schema(plugins: Plugins) -> str:
    import orjson

    from muxly_dagster.catalog import schema as catalog_schema

    return orjson.dumps(catalog_schema(plugins), option=orjson.OPT_INDENT_2).decode()
