"""A project to begin with, for any connector: its template, a route for every pull to a folder of files, and a daily job."""

import re

import yaml

from muxly_dagster import catalog

_VARIABLE = re.compile(r"\$\{(\w+)\}")
_HEAD = "# yaml-language-server: $schema=.muxly/schema.json\n"
_ENVIRONMENT = "# Copy this file to .env, fill it in, and load it before you run muxly: set -a; . ./.env; set +a\n"
_IGNORED = ".env\n.muxly/\nout/\n"


def project_files(name: str) -> dict[str, str]:
    """The files of a project that pulls from the connector with this id, by name."""
    kind = catalog.connector_class(name)
    template = kind.config_template(name)
    pulls = list(yaml.safe_load(template)["sources"][name]["pulls"] or {})
    routes = {f"{pull}_out": f"{name}.{pull}" for pull in pulls}
    needs = variables(template)
    first = f"set {' and '.join(needs)}, then " if needs else ""
    lines = [f"{_HEAD}# {kind.title}: {first}muxly check; muxly run everything\n{template}"]
    if routes:
        lines += ["routes:", *(f"  {route}: {{from: {table}, to: archive}}" for route, table in routes.items()), ""]
        lines += ["destinations:", "  archive: {type: file, path: ./out, format: ndjson}", ""]
    lines += ["jobs:", f'  everything: {{select: [{", ".join([name, *routes])}], cron: "@daily"}}', ""]
    return {"muxly.yaml": "\n".join(lines), ".gitignore": _IGNORED} | ({".env.example": _environment(needs)} if needs else {})


def variables(text: str) -> dict[str, str]:
    """The environment variables that a muxly.yaml needs, each with the comment above the first line that names it."""
    found: dict[str, str] = {}
    comment: list[str] = []
    for line in text.splitlines():
        if line.lstrip().startswith("#"):
            comment.append(line.strip())
            continue
        for name in _VARIABLE.findall(line):
            found.setdefault(name, "\n".join(comment))
        comment = []
    return found


def _environment(needs: dict[str, str]) -> str:
    return "\n".join([_ENVIRONMENT, *(f"{comment}\n{name}=\n".lstrip() for name, comment in needs.items())])
