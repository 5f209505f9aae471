"""Commands that look and change nothing: preview, query, trace."""

from collections.abc import Mapping, Sequence
from typing import Any

from muxly_dagster import records
from muxly_dagster.cli import opening, terminal
from muxly_dagster.previewing import to_rows


def preview(name: str, limit: int, *, json: bool) -> None:
    """Show the records that a pull, transform or delivery would handle next."""
    with opening.runtime() as runtime:
        for note in runtime.preview_notes(name):
            terminal.say(f"{name}: {note}")
        rows = runtime.preview(name, limit)
        is_table = name in runtime.assembly.pulls or name in runtime.assembly.transforms
    if json:
        terminal.print_json(rows)
    elif rows:
        if is_table:
            print_rows(rows)
        else:
            _print_routed(rows)
    else:
        terminal.say(f"{name}: nothing to show")


def _print_routed(rows: Sequence[dict[str, Any]]) -> None:
    """Records with where they go and why, then the messages that would be sent about them."""
    shown = [{name: value for name, value in row.items() if name != "messages"} for row in rows]
    print_rows([row | {"to": ", ".join(row["to"]) or "nowhere", "because": ", ".join(row["because"])} for row in shown])
    for row in rows:
        for destination, message in row["messages"].items():
            _print(f"\n{row['id']} → {destination}", style="bold")
            _print("\n".join(f"  {line}" for line in message.splitlines()))


def print_rows(rows: Sequence[Mapping[str, Any]]) -> None:
    """Rows as people read them; one that lacks a column has nothing there."""
    columns = list(dict.fromkeys(column for row in rows for column in row))
    terminal.print_records(columns, [[_cell(row.get(column)) for column in columns] for row in rows])


def query(sql: str, *, json: bool) -> None:
    """Print the rows of one SELECT."""
    with opening.runtime() as runtime:
        table = runtime.query(sql)
    rows = to_rows(table)
    if json:
        terminal.print_json(rows)
    else:
        terminal.print_records(table.column_names, [[_cell(value) for value in row.values()] for row in rows])
        terminal.say(f"{len(rows):,} row{'s' if len(rows) != 1 else ''}")


def trace(text: str, *, json: bool) -> None:
    """Tell the story of a record."""
    with opening.runtime() as runtime:
        stories = runtime.trace(text)
    if json:
        terminal.print_json(stories)
        return
    for story in stories:
        record = story["record"]
        _print(f"{record['id']}  {record['op']} of key {record['key']!r}", style="bold")
        _print(f"  read {record['timestamp']} in run {record['metadata']['run']}")
        _print(f"  data {records.to_json(record['data']).decode()}")
        for target in story["targets"]:
            _tell(target)
        if not story["targets"]:
            _print("  no route reads this table")


def _tell(target: dict[str, Any]) -> None:
    _print(f"  → {target['target']} ({target['destination']}): {target['outcome']}")
    if target["waits"]:
        _print(f"      until {target['waits']['until']}: {target['waits']['why']}")
    for rule in target["rules"]:
        answer = {True: "true", False: "false", None: "no answer: the condition fails on this record"}[rule["answer"]]
        asked = f"when {rule['when']} is {answer}" if rule["when"] else "every record"
        sampled = "" if rule["sampled"] else ", but the key is not in its sample"
        _print(f"      {rule['rule']}: {asked}{sampled}{', decided' if rule['decided'] else ''} → {', '.join(rule['to'])}")
        for part in rule["because"]:
            _print(f"        {part['text']} is {_answer(part['answer'])}{_values(part['values'])}")
    if target["otherwise"]:
        _print(f"      no rule matched: otherwise → {', '.join(target['otherwise'])}")
    if target["receipt"]:
        receipt = target["receipt"]
        _print(f"      receipt {receipt['id']} at {receipt['at']}, run {receipt['run']}")
    if target["dead_letter"]:
        letter = target["dead_letter"]
        _print(f"      dead letter {letter['id']} ({letter['status']}): {letter['reason']}")


def _answer(answer: Any) -> str:
    return {True: "true", False: "false", None: "unknown"}.get(answer, "a failure on this record")


def _values(values: Mapping[str, Any]) -> str:
    return "".join(f", {name} is {records.to_json(value).decode()}" for name, value in values.items())


def _print(text: str, style: str | None = None) -> None:
    terminal.out.print(terminal.plain(text), style=style, markup=False)


def _cell(value: Any) -> str:
    if value is None:
        return ""
    return value if isinstance(value, str) else records.to_json(value).decode().strip('"')
