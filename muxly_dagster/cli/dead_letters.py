"""`muxly dead-letters`: what could not be read or was refused, why, and how it gets another chance."""

from typing import Annotated

import typer

from muxly_dagster.cli import opening, terminal
from muxly_dagster.errors import ConfigurationError
from muxly_dagster.state import DeadLetter

app = typer.Typer(help="Records that could not be read or were refused: list, show, replay.", no_args_is_help=True)

Json = Annotated[bool, typer.Option("--json", help="Print JSON for machines.")]
Name = Annotated[str | None, typer.Argument(help="A pull, source, delivery or route; all of them unless given.")]


@app.command("list")
def list_(name: Name = None, all_: Annotated[bool, typer.Option("--all", help="Closed ones too.")] = False, json: Json = False) -> None:
    """List dead letters, newest first."""
    with opening.runtime() as runtime:
        letters = runtime.state.ledger.dead_letters(name, status=None if all_ else "open")
    if json:
        terminal.print_json([_as_dict(letter) for letter in letters])
    elif letters:
        rows = [[letter.id, letter.name, letter.record_id or "-", letter.status, letter.times, letter.reason[:100]] for letter in letters]
        terminal.print_table(["id", "where", "record", "status", "times", "reason"], rows, numbers=["times"])
    else:
        terminal.say("no dead letters")


@app.command()
def show(letter_id: Annotated[str, typer.Argument(help="Its id, or the beginning of it.")], json: Json = False) -> None:
    """Show one dead letter with its reason and record."""
    with opening.runtime() as runtime:
        letter = _find(runtime.state.ledger.dead_letter(letter_id), letter_id)
    if json:
        terminal.print_json(_as_dict(letter))
        return
    for name, value in _as_dict(letter).items():
        terminal.out.print(f"{name:10} {value}", markup=False)


@app.command()
def replay(
    name: Annotated[str, typer.Argument(help="A dead letter's id, a delivery or a route.")],
    json: Json = False,
) -> None:
    """Send refused records again, each only to the destination that refused it."""
    with opening.runtime() as runtime:
        letters = runtime.state.ledger.dead_letters(name) or [_find(runtime.state.ledger.dead_letter(name), name)]
        report = runtime.replay([letter for letter in letters if letter.status == "open"])
    if json:
        terminal.print_json(report)
    else:
        terminal.say(f"{report['replayed']} replayed, {report['refused']} refused again, {report['superseded']} superseded by a newer version")
    if report["refused"]:
        raise typer.Exit(1)


def _find(letter: DeadLetter | None, letter_id: str) -> DeadLetter:
    if letter is None:
        raise ConfigurationError(f"there is no dead letter {letter_id}", do="list them with `muxly dead-letters list`")
    return letter


def _as_dict(letter: DeadLetter) -> dict[str, object]:
    fields = ("kind", "name", "record_id", "status", "times", "reason", "at", "run_id", "record")
    return {"id": letter.id} | {field: getattr(letter, field) for field in fields}
