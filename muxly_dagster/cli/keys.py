"""`muxly keys`: write keys, by which services may post events into a source."""

from typing import TYPE_CHECKING, Annotated

import typer

from muxly_dagster.cli import terminal
from muxly_dagster.errors import ConfigurationError

if TYPE_CHECKING:
    from muxly_dagster.runtime import Runtime
    from muxly_dagster.state.keys import WriteKey

app = typer.Typer(help="Write keys, by which services post events: create, list, revoke.", no_args_is_help=True)

Json = Annotated[bool, typer.Option("--json", help="Print JSON for machines.")]


@app.command()
def create(
    source: Annotated[str, typer.Argument(help="The source that it opens: one with `connector: collector`.")],
    streams: Annotated[list[str] | None, typer.Option("--stream", help="A stream that it opens; all of the source unless given.")] = None,
    name: Annotated[str, typer.Option(help="Who uses it, for people.")] = "",
    rate: Annotated[str, typer.Option(help="The most requests of it, such as 100/second, by each API process.")] = "",
    json: Json = False,
) -> None:
    """Make a write key, and show it: only a hash of it is kept."""
    from muxly_dagster.api.collecting.known import check_scope
    from muxly_dagster.api.collecting.rates import read_rate

    with _open() as runtime:
        check_scope(runtime.assembly, source, streams or [])
        if rate:
            read_rate(rate)
        key, text = runtime.state.keys.create(source, streams or [], name, rate)
    if json:
        terminal.print_json(_as_dict(key) | {"key": text})
        return
    terminal.print_text(text)
    terminal.say(f"keep it: it is not shown again; `muxly keys revoke {key.id}` revokes it")


@app.command("list")
def list_(
    source: Annotated[str | None, typer.Argument(help="Only those of this source.")] = None,
    all_: Annotated[bool, typer.Option("--all", help="Revoked ones too.")] = False,
    json: Json = False,
) -> None:
    """List write keys, the oldest first."""
    with _open() as runtime:
        keys = [key for key in runtime.state.keys.all(source or "") if all_ or key.revoked_at is None]
    if json:
        terminal.print_json([_as_dict(key) for key in keys])
    elif keys:
        columns = ["id", "source", "streams", "name", "rate", "created", *(["revoked"] if all_ else [])]
        terminal.print_records(columns, [_row(key, revoked=all_) for key in keys])
    else:
        terminal.say("no write keys")


@app.command()
def revoke(id: Annotated[str, typer.Argument(help="The key's id.")], json: Json = False) -> None:
    """Let a key open nothing any more: every API process knows of it within seconds."""
    with _open() as runtime:
        key = runtime.state.keys.revoke(id)
    if key is None:
        raise ConfigurationError(f"there is no write key {id}", do="list them with `muxly keys list`")
    if json:
        terminal.print_json(_as_dict(key))
    else:
        terminal.say(f"{key.id}: revoked")


def _open() -> "Runtime":
    from muxly_dagster.cli import opening  # brings Dagster along, and `muxly --help` should not wait for it

    return opening.runtime()


def _as_dict(key: "WriteKey") -> dict[str, object]:
    return {
        "id": key.id,
        "source": key.source,
        "streams": list(key.streams),
        "name": key.name,
        "rate": key.rate,
        "created_at": key.created_at.isoformat(),
        "revoked_at": key.revoked_at.isoformat() if key.revoked_at else None,
    }


def _row(key: "WriteKey", *, revoked: bool) -> list[str]:
    row = [key.id, key.source, ", ".join(key.streams) or "all", key.name or "-", key.rate or "-", f"{key.created_at:%Y-%m-%d %H:%M}"]
    return [*row, f"{key.revoked_at:%Y-%m-%d %H:%M}" if key.revoked_at else "-"] if revoked else row
