"""`muxly plugins`: which plugins there are, which of them the project has enabled, and what is wrong with those that are broken."""

from typing import Annotated

import typer

app = typer.Typer(help="Plugins: list.", no_args_is_help=True)

Json = Annotated[bool, typer.Option("--json", help="Print JSON for machines.")]


@app.callback()
def _group() -> None:
    """Keeps `list` a command of its own while it is the only one."""


@app.command("list")
def list_(json: Json = False) -> None:
    """List installed plugins and those of the project's folders; only enabled ones are imported."""
    # Imported when it runs: `muxly --help` should not wait for the plugins' contracts.
    from muxly_dagster.cli import plugin_list

    plugin_list.list_plugins(json=json)
