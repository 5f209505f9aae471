"""`muxly connectors`: what there is to pull from, what a source of the project finds there, and manifests in the making."""

from pathlib import Path
from typing import Annotated

import typer

app = typer.Typer(help="Connectors: list, show, template, test, streams, validate, try, act.", no_args_is_help=True)

Json = Annotated[bool, typer.Option("--json", help="Print JSON for machines.")]
Connector = Annotated[str, typer.Argument(metavar="NAME", help="A connector's id, or the path of a manifest.")]
Source = Annotated[str, typer.Argument(help="A source of the project.")]

# What a command needs is imported when it runs: connectors bring their vendors' libraries, and `muxly --help` should not wait for them.


@app.command("list")
def list_(json: Json = False) -> None:
    """List the connectors: those that come with Muxly, and those of the project's plugins."""
    from muxly_dagster.cli import declared

    declared.list_connectors(json=json)


@app.command()
def show(name: Connector, json: Json = False) -> None:
    """Show what a connector takes and offers: fields, ways to sign in, streams, actions, limits."""
    from muxly_dagster.cli import declared

    declared.show(name, json=json)


@app.command()
def template(
    name: Connector,
    source: Annotated[str, typer.Option("--name", help="What the source is called; the connector's id unless told otherwise.")] = "",
) -> None:
    """Print a commented muxly.yaml with a source of this connector."""
    from muxly_dagster.cli import declared

    declared.template(name, source)


@app.command()
def test(source: Source, json: Json = False) -> None:
    """Try a source's credentials and its pulls, and say which account it is; reads no records."""
    from muxly_dagster.cli import live

    live.test(source, json=json)


@app.command()
def streams(source: Source, json: Json = False) -> None:
    """List the streams that a source finds at its provider, with keys and columns."""
    from muxly_dagster.cli import live

    live.streams(source, json=json)


@app.command()
def validate(file: Annotated[Path, typer.Argument(help="A manifest.")], json: Json = False) -> None:
    """Check a manifest; says everything that is wrong at once, each with its place."""
    from muxly_dagster.cli import manifests

    manifests.validate(file, json=json)


@app.command("try")
def try_(
    name: Connector,
    stream: Annotated[str, typer.Option("--stream", "-s", help="The stream to read; needed where there is more than one.")] = "",
    limit: Annotated[int, typer.Option("--limit", "-n", min=1, help="How many records.")] = 5,
    settings: Annotated[
        list[str] | None,
        typer.Option("--set", help="A field of the source, such as base_url=http://127.0.0.1:8000, or auth.token='${TOKEN}'."),
    ] = None,
    pull: Annotated[list[str] | None, typer.Option("--pull", help="A field of the pull, such as key=[id].")] = None,
    json: Json = False,
) -> None:
    """Read some records of a stream, live and without a project; nothing is stored."""
    from muxly_dagster.cli import manifests

    manifests.try_stream(name, stream, limit, settings or [], pull or [], json=json)


@app.command()
def act(
    source: Source,
    action: Annotated[str, typer.Argument(help="What to do; without it, the source's actions are listed.")] = "",
    inputs: Annotated[list[str] | None, typer.Argument(metavar="[NAME=VALUE]...", help="The action's inputs.")] = None,
    document: Annotated[str, typer.Option("--input", help="All inputs as one JSON object; `-` reads it from standard input.")] = "",
    json: Json = False,
) -> None:
    """Do something at a source's provider, such as sending a message, and print the answer as JSON."""
    from muxly_dagster.cli import live

    live.act(source, action, inputs or [], document, json=json)
