"""Commands that look and change nothing: preview, query, trace."""

from typing import Any

import pyarrow as pa

from muxly_dagster import records
from muxly_dagster.cli import opening, terminal


def preview(name: str, limit: int, *, json: bool) -> None:
    """Show the records that a pull, transform or delivery would handle next."""
    with opening.runtime() as runtime:
        rows = runtime.preview(name, limit)
    if json:
        terminal.print_json(rows)
    elif rows:
        terminal.print_table(list(rows[0]), [[_cell(value) for value in row.values()] for row in rows])
    else:
        terminal.say(f"{name}: nothing to show")


def query(sql: str, *, json: bool) -> None:
    """Print the rows of one SELECT."""
    with opening.runtime() as runtime:
        rows = runtime.query(sql)
    if json:
        terminal.print_json(_plain_rows(rows))
    else:
        terminal.print_table(rows.column_names, [[_cell(value) for value in row.values()] for row in rows.to_pylist()])
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
        terminal.out.print(f"[bold]{record['id']}[/]  {record['op']} of key {record['key']!r}", markup=True)
        terminal.out.print(f"  read {record['timestamp']} in run {record['metadata']['run']}", markup=False)
        terminal.out.print(f"  data {records.to_json(record['data']).decode()}", markup=False)
        for target in story["targets"]:
            _tell(target)
        if not story["targets"]:
            terminal.out.print("  no route reads this table")


def _tell(target: dict[str, Any]) -> None:
    terminal.out.print(f"  → {target['target']} ({target['destination']}): {target['outcome']}", markup=False)
    for rule in target["rules"]:
        answer = {True: "true", False: "false", None: "no answer: the condition fails on this record"}[rule["answer"]]
        chosen = ", decided" if rule["decided"] else ""
        when = f"when {rule['when']}" if rule["when"] else "always"
        terminal.out.print(f"      {rule['rule']}: {when} is {answer}{chosen} → {', '.join(rule['to'])}", markup=False)
    if target["otherwise"]:
        terminal.out.print(f"      no rule matched: otherwise → {', '.join(target['otherwise'])}", markup=False)
    if target["receipt"]:
        receipt = target["receipt"]
        terminal.out.print(f"      receipt {receipt['id']} at {receipt['at']}, run {receipt['run']}", markup=False)
    if target["dead_letter"]:
        letter = target["dead_letter"]
        terminal.out.print(f"      dead letter {letter['id']} ({letter['status']}): {letter['reason']}", markup=False)


def _plain_rows(rows: pa.Table) -> list[dict[str, Any]]:
    return list(rows.to_pylist())


def _cell(value: Any) -> str:
    if value is None:
        return ""
    text = value if isinstance(value, str) else records.to_json(value).decode().strip('"')
    return text if len(text) <= 80 else text[:77] + "..."
