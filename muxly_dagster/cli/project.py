"""Commands about the project itself: init, check, schema."""

import os
from concurrent.futures import ThreadPoolExecutor
from importlib import resources
from pathlib import Path
from typing import Any

import typer

from muxly_dagster.assembly import Assembly, load_assembly
from muxly_dagster.cli import opening, terminal
from muxly_dagster.connector import Connector
from muxly_dagster.destination import Destination
from muxly_dagster.errors import ConfigurationError, MuxlyError
from muxly_dagster.resource import CheckResult


def init(folder: Path, template: str) -> None:
    """Write the template's files into the folder. Raises ConfigurationError where a project is already there."""
    source = resources.files("muxly_dagster.cli") / "templates" / template
    if not source.is_dir():
        known = ", ".join(sorted(entry.name for entry in (resources.files("muxly_dagster.cli") / "templates").iterdir() if entry.is_dir()))
        raise ConfigurationError(f"there is no template {template}", do=f"choose one of {known}")
    existing = [name for name in ("muxly.yaml", "muxly.yml", "muxly.json", "muxly.toml") if (folder / name).exists()]
    if existing:
        raise ConfigurationError(f"{folder / existing[0]} is there already", do="choose another folder, or edit the project you have")
    for path, content in sorted(_files(source)):
        target = folder / path
        target.parent.mkdir(parents=True, exist_ok=True)
        if not target.exists():
            target.write_text(content, encoding="utf-8")
            terminal.say(f"wrote {target}")
    schema_file = folder / ".muxly" / "schema.json"
    schema_file.parent.mkdir(exist_ok=True)
    schema_file.write_bytes(_schema())
    there = "" if folder.resolve() == Path.cwd() else f"cd {folder}; "
    terminal.say(f"next: {there}muxly check; muxly run everything")


def _files(folder: Any, at: str = "") -> list[tuple[str, str]]:
    found = []
    for entry in folder.iterdir():
        name = f"{at}{entry.name}"
        found += _files(entry, f"{name}/") if entry.is_dir() else [(name.removesuffix(".tmpl"), entry.read_text(encoding="utf-8"))]
    return found


def check(*, offline: bool, json: bool) -> None:
    """Load and check the project; then try every source and destination, all at once."""
    settings = opening.settings()
    try:
        assembly = load_assembly(settings.project, os.environ)
    except ConfigurationError as error:
        if not json:
            raise
        found = [{name: getattr(p, name) for name in ("file", "line", "column", "path", "what", "do")} for p in error.problems]
        terminal.print_json({"status": "failed", "problems": found, "connections": []})
        raise typer.Exit(error.exit_code) from None
    results = [] if offline else _try_all(assembly)
    failed = [result for result in results if result["status"] == "failed"]
    if json:
        terminal.print_json({"status": "failed" if failed else "ok", "problems": [], "connections": results} | _contents(assembly))
    else:
        _tell(assembly, results, offline=offline)
    if failed:
        raise typer.Exit(1)


def _contents(assembly: Assembly) -> dict[str, list[str]]:
    return {
        "pulls": list(assembly.pulls),
        "transforms": list(assembly.transforms),
        "deliveries": list(assembly.targets),
        "jobs": list(assembly.jobs),
    }


def _tell(assembly: Assembly, results: list[dict[str, str]], *, offline: bool) -> None:
    terminal.say("muxly.yaml is fine")
    for kind, names in _contents(assembly).items():
        if names:
            terminal.say(f"  {kind}: {', '.join(names[:20])}{f' and {len(names) - 20} more' if len(names) > 20 else ''}")
    if offline:
        terminal.say("sources and destinations were not tried (--offline)")
    else:
        terminal.print_table(["name", "status", "tried", "what", "do"], [list(result.values()) for result in results])


def _try_all(assembly: Assembly) -> list[dict[str, str]]:
    things: dict[str, Connector | Destination] = {f"source {name}": source for name, source in assembly.sources.items()}
    things |= {f"destination {name}": destination for name, destination in assembly.destinations.items()}
    with ThreadPoolExecutor(8) as pool:
        results = pool.map(_try, things.values())
    return [
        {"name": name, "status": result.status, "tried": result.tried, "what": result.what, "do": result.do}
        for name, result in zip(things, results, strict=True)
    ]


def _try(thing: Connector | Destination) -> CheckResult:
    try:
        return thing.test_connection()
    except MuxlyError as error:
        return CheckResult("failed", "connect", error.what, error.do)


def schema() -> None:
    """Print the JSON Schema."""
    terminal.out.print(_schema().decode(), markup=False, end="\n")


def _schema() -> bytes:
    import orjson

    from muxly_dagster.catalog import schema as catalog_schema

    return orjson.dumps(catalog_schema(), option=orjson.OPT_INDENT_2)
