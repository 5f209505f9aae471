"""`muxly dead-letters`: what could not be read or was refused, why, and how it gets another chance."""

from typing import TYPE_CHECKING, Annotated, Any

import typer

from muxly_dagster.cli import terminal
from muxly_dagster.errors import ConfigurationError

if TYPE_CHECKING:
    from muxly_dagster.assembly import Assembly
    from muxly_dagster.runtime import Runtime
    from muxly_dagster.state import DeadLetter

app = typer.Typer(help="Records that could not be read or were refused: list, show, edit, replay, skip.", no_args_is_help=True)

_EVERY = 1_000_000

Json = Annotated[bool, typer.Option("--json", help="Print JSON for machines.")]
Name = Annotated[str | None, typer.Argument(help="A pull, source, delivery or route; all of them unless given.")]


@app.command("list")
def list_(name: Name = None, all_: Annotated[bool, typer.Option("--all", help="Closed ones too.")] = False, json: Json = False) -> None:
    """List dead letters, newest first."""
    with _open() as runtime:
        letters = runtime.state.ledger.dead_letters(name, status=None if all_ else "open")
        if name and not letters:
            _check_name(runtime.assembly, name)
    if json:
        terminal.print_json([letter.plain() for letter in letters])
    elif letters:
        rows = [[letter.id, letter.name, letter.record_id or "-", letter.status, str(letter.times), letter.reason] for letter in letters]
        terminal.print_records(["id", "where", "record", "status", "times", "reason"], rows)
    else:
        terminal.say("no dead letters")


@app.command()
def show(letter_id: Annotated[str, typer.Argument(help="Its id, or the beginning of it.")], json: Json = False) -> None:
    """Show one dead letter with its reason and record."""
    with _open() as runtime:
        letter = _find(runtime.state.ledger.dead_letter(letter_id), letter_id)
    if json:
        terminal.print_json(letter.plain())
        return
    for name, value in letter.plain().items():
        terminal.out.print(terminal.plain(f"{name:10} {value or '-'}"), markup=False)


@app.command()
def edit(
    letter_id: Annotated[str, typer.Argument(help="Its id, or the beginning of it.")],
    fields: Annotated[list[str] | None, typer.Option("--set", help="A column and its value, such as amount=12.5; null empties it.")] = None,
    undo: Annotated[bool, typer.Option("--undo", help="Take an earlier correction back.")] = False,
    json: Json = False,
) -> None:
    """Correct the record of a dead letter, in your editor unless --set says how; a replay then sends it as corrected."""
    with _open() as runtime:
        letter = _find(runtime.state.ledger.dead_letter(letter_id), letter_id)
        runtime.edit(letter, None if undo else _corrected(letter, fields or []))
        letter = _find(runtime.state.ledger.dead_letter(letter.id), letter.id)
    if json:
        terminal.print_json(letter.plain())
    else:
        terminal.say(f"{letter.id}: {'as it was' if undo else f'corrected; now `muxly dead-letters replay {letter.id}`'}")


@app.command()
def replay(
    name: Annotated[str, typer.Argument(help="A dead letter's id, a delivery or a route; '*' for all of them.")],
    json: Json = False,
) -> None:
    """Send refused records again, each only to the destination that refused it."""
    with _open() as runtime:
        letters = _chosen(runtime, name)
        report = runtime.replay(letters)
    if json:
        terminal.print_json(report)
    elif not letters:
        terminal.say(f"{name}: no open dead letters")
    else:
        terminal.say(
            f"{report['replayed']} replayed, {report['refused']} refused again, {report['superseded']} superseded by a newer version"
        )
    if report["refused"]:
        raise typer.Exit(1)


@app.command()
def skip(
    name: Annotated[str, typer.Argument(help="A dead letter's id, a delivery or a route.")],
    json: Json = False,
) -> None:
    """Pass over refused records: they are not sent any more, and a delivery that one of them stops goes on behind it."""
    with _open() as runtime:
        count = runtime.skip(_chosen(runtime, name))
    if json:
        terminal.print_json({"skipped": count})
    else:
        terminal.say(f"{count} skipped" if count else f"{name}: no open dead letters")


def _chosen(runtime: "Runtime", name: str) -> "list[DeadLetter]":
    """The open dead letters that a name or an id means."""
    everything = name == "*"
    letters = runtime.state.ledger.dead_letters(None if everything else name, limit=_EVERY)
    if not letters and not everything and not _is_name(runtime.assembly, name):
        letters = [_find(runtime.state.ledger.dead_letter(name), name)]
    readable = [letter for letter in letters if letter.kind == "delivery"] if everything else letters
    return [letter for letter in readable if letter.status == "open"]


def _corrected(letter: "DeadLetter", fields: list[str]) -> dict[str, Any]:
    """The data as the person wants it: by the fields that are said, or as it comes out of the editor."""
    import click  # as everything here, only once a command runs
    import orjson

    from muxly_dagster.cli.live import pairs

    before = orjson.loads(letter.edited or orjson.dumps(orjson.loads(letter.record)["data"]))
    if fields:
        return {name: _meant(text, before.get(name)) for name, text in pairs(fields).items()}
    try:
        text = click.edit(orjson.dumps(before, option=orjson.OPT_INDENT_2).decode(), extension=".json")
    except click.ClickException as error:
        raise ConfigurationError(f"the editor failed: {error.message}", do="name another in EDITOR, or say --set NAME=VALUE") from None
    if text is None:
        raise ConfigurationError("the record was left as it was", do="change it in the editor and save it, or say --set NAME=VALUE")
    try:
        data = orjson.loads(text)
    except orjson.JSONDecodeError as error:
        raise ConfigurationError(f"what was saved is not JSON: {error}", do="edit it again") from None
    if not isinstance(data, dict):
        raise ConfigurationError("what was saved is not a record", do="keep the braces, and change values only")
    return data


def _meant(text: str, before: Any) -> Any:
    """A column's value as it is said. What was text stays text, to the last digit: so are decimals and times written in a record."""
    from muxly_dagster.cli.live import value

    if text in ("null", ""):
        return None if text or not isinstance(before, str) else ""
    return text if isinstance(before, str) or (before is None and text[0] not in "{[") else value(text)


def _open() -> "Runtime":
    # Imported when a command runs: what opens a project brings Dagster along, and `muxly --help` should not wait for it.
    from muxly_dagster.cli import opening

    return opening.runtime()


def _is_name(assembly: "Assembly", name: str) -> bool:
    return name in _names(assembly)


def _check_name(assembly: "Assembly", name: str) -> None:
    from muxly_dagster.project.checks import did_you_mean  # as above

    if not _is_name(assembly, name):
        raise ConfigurationError(f"there is no pull, source, delivery or route named {name}", do=did_you_mean(name, _names(assembly)))


def _names(assembly: "Assembly") -> set[str]:
    return {*assembly.sources, *assembly.pulls, *assembly.targets, *(target.route for target in assembly.targets.values())}


def _find(letter: "DeadLetter | None", letter_id: str) -> "DeadLetter":
    if letter is None:
        what = f"no dead letter, or more than one, has an id that begins with {letter_id}"
        raise ConfigurationError(what, do="list them with `muxly dead-letters list --all`")
    return letter
