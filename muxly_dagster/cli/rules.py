"""`muxly rules`: new rules tried on what has happened, before anyone is bothered."""

from typing import Annotated

import typer

app = typer.Typer(help="A route's rules: test them on past changes.", no_args_is_help=True)


@app.command()
def test(
    route: Annotated[str, typer.Argument(help="A route.")],
    since: Annotated[str, typer.Option(help="How far to look back, such as 12h, 7d or 4w.")] = "7d",
    json: Annotated[bool, typer.Option("--json", help="Print JSON for machines.")] = False,
) -> None:
    """Ask the rules in muxly.yaml about past changes, and say what would have gone elsewhere than it went; nothing is sent."""
    from muxly_dagster.cli import rehearsal  # opens the project, which `muxly --help` should not wait for

    rehearsal.test(route, since, json=json)
