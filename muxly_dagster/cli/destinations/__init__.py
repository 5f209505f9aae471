"""`muxly destinations`: where records can be delivered to, and whether a destination of the project takes them."""

from typing import Annotated

import typer

app = typer.Typer(help="Destinations: list, show, template, test, resume.", no_args_is_help=True)

Json = Annotated[bool, typer.Option("--json", help="Print JSON for machines.")]
Type = Annotated[str, typer.Argument(metavar="TYPE", help="A type of destination.")]

# What a command needs is imported when it runs: destinations bring their vendors' libraries, and `muxly --help` should not wait for them.


@app.command("list")
def list_(json: Json = False) -> None:
    """List the types of destinations: those that come with Muxly, and those of the project's plugins."""
    from muxly_dagster.cli.destinations import declared

    declared.list_destinations(json=json)


@app.command()
def show(name: Type, json: Json = False) -> None:
    """Show what a destination takes and promises: fields, ways to sign in, guarantee, templates, an example."""
    from muxly_dagster.cli.destinations import declared

    declared.show(name, json=json)


@app.command()
def template(
    name: Type,
    destination: Annotated[str, typer.Option("--name", help="What the destination is called; its type unless told otherwise.")] = "",
) -> None:
    """Print a commented muxly.yaml with a destination of this type."""
    from muxly_dagster.cli.destinations import declared

    declared.template(name, destination)


@app.command()
def test(destination: Annotated[str, typer.Argument(help="A destination of the project.")], json: Json = False) -> None:
    """Try a destination, and every route that gives it settings of its own; delivers nothing."""
    from muxly_dagster.cli.destinations import live

    live.test(destination, json=json)


@app.command()
def resume(destination: Annotated[str, typer.Argument(help="A destination of the project.")], json: Json = False) -> None:
    """Deliver again to a destination that is left alone after failures, or that was switched off because it said that it is gone."""
    from muxly_dagster.cli.destinations import live

    live.resume(destination, json=json)
