"""What the command prints: words and tables on a terminal, plain lines without one, JSON for machines."""

import sys
from collections.abc import Iterable, Sequence
from typing import Any

from rich.console import Console
from rich.measure import Measurement
from rich.table import Table
from rich.text import Text

from muxly_dagster.errors import ConfigurationError, MuxlyError

_UNBROKEN = 10_000  # columns: output that goes to a file or a pipe is not wrapped
_LONGEST_CELL = 80
_STATUS = {"ok": "green", "failed": "bold red", "skipped": "yellow"}

_SHOWN = {code: "\N{REPLACEMENT CHARACTER}" for code in (*range(0x20), *range(0x7F, 0xA0)) if chr(code) not in "\n\t"}
"""Control characters by what is shown in their place: what a provider says must not move the cursor or paint the terminal."""

out = Console(highlight=False, soft_wrap=True, width=None if sys.stdout.isatty() else _UNBROKEN)
err = Console(stderr=True, highlight=False, soft_wrap=True)


def say(text: str) -> None:
    """A line for the person, on standard error so that standard output stays for results."""
    err.print(_text(text))


def fail(error: MuxlyError) -> None:
    """An error as people read it: what stands in a file with its place, one line each; else what happened, then what to do."""
    problems = error.problems if isinstance(error, ConfigurationError) else []
    if len(problems) > 1 or any(problem.file for problem in problems):
        err.print(Text(f"{len(problems)} problem{'s' if len(problems) != 1 else ''} found", style="bold red"))
        for problem in problems:
            err.print(_text(str(problem)))
        return
    what, do = (problems[0].what, problems[0].do) if problems else (error.what, error.do)
    path = f"{problems[0].path}: " if problems and problems[0].path else ""
    where = f"{error.where}: " if error.where else ""
    err.print(Text("error: ", style="bold red") + _text(f"{where}{path}{what}"))
    if do:
        err.print(_text(f"  → {do}"))


def status(word: str, shown: str = "") -> Text:
    """A status in its colour; under another word, if that says more."""
    return Text(shown or word, style=_STATUS.get(word, ""))


def plain(text: str) -> str:
    """Text in which nothing can steer the terminal."""
    return text.translate(_SHOWN)


def print_text(text: str) -> None:
    """Standard output, as it stands."""
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


def print_json(value: Any) -> None:
    """JSON on standard output, in the form records have everywhere."""
    from muxly_dagster import records  # brings pyarrow along, which `muxly --help` should not wait for

    sys.stdout.buffer.write(records.to_json(value) + b"\n")
    sys.stdout.flush()


def print_table(columns: Sequence[str], rows: Sequence[Sequence[Any]], *, numbers: Sequence[str] = ()) -> None:
    """Rows under headings, a line for each.

    Where the terminal is narrow, columns move together, then names go on behind their dot, then whatever stands behind the first
    column goes on below itself: nothing is cut.
    """
    table = _table(columns, rows, numbers)
    if _width(table) > out.width:
        table = _table(columns, rows, numbers, gap=1)
    if _width(table) > out.width:
        rows = [[_text(str(row[0]).replace(".", ".\n  ", 1)), *row[1:]] for row in rows]
        table = _table(columns, rows, numbers)
    if _width(table) > out.width:
        table = _table(columns, rows, numbers, gap=1, folds=True)
    out.print(table, soft_wrap=False)


def print_records(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Records as a table, long values cut; on a terminal that is too narrow for it, each record as a list of its values, uncut."""
    table = _table(columns, [[_cut(value) for value in row] for row in rows], ())
    if _width(table) <= out.width:
        out.print(table, soft_wrap=False)
        return
    for number, row in enumerate(rows, 1):
        out.print(Text(f"record {number}", style="bold"))
        listed = Table.grid(padding=(0, 2, 0, 0))
        listed.add_column(no_wrap=True)
        listed.add_column(overflow="fold")
        for column, value in zip(columns, row, strict=True):
            listed.add_row(_text(f"  {column}"), _text(value))
        out.print(listed, soft_wrap=False)


def print_checks(checks: Iterable[tuple[str, str, str, str]]) -> None:
    """What was checked, one line each: status, name, what was found; below it what to do."""
    print_grid([[status(word), name, what + (f"\n→ {do}" if do else "")] for name, word, what, do in checks])


def print_grid(rows: Sequence[Sequence[Any]]) -> None:
    """Rows without headings; only the last column is broken where the terminal is narrow."""
    table = Table.grid(padding=(0, 2, 0, 0))
    for _ in rows[0][:-1] if rows else ():
        table.add_column(no_wrap=True)
    table.add_column(overflow="fold")
    for row in rows:
        table.add_row(*(_text(value) for value in row))
    out.print(table, soft_wrap=False)


def _table(columns: Sequence[str], rows: Sequence[Sequence[Any]], numbers: Sequence[str], *, gap: int = 2, folds: bool = False) -> Table:
    table = Table(box=None, pad_edge=False, padding=(0, gap, 0, 0), header_style="bold")
    for number, column in enumerate(columns):
        whole = not folds or number == 0 or column in numbers
        table.add_column(_text(column), justify="right" if column in numbers else "left", no_wrap=whole, overflow="fold")
    for row in rows:
        table.add_row(*(_text(value) for value in row))
    return table


def _width(table: Table) -> int:
    return Measurement.get(out, out.options.update(max_width=_UNBROKEN), table).maximum


def _text(value: Any) -> Text:
    if isinstance(value, Text):
        return value
    text = "" if value is None else f"{value:,}" if isinstance(value, int) else str(value)
    return Text(text.translate(_SHOWN))


def _cut(text: str) -> str:
    text = " ".join(text.split())
    return text if len(text) <= _LONGEST_CELL else text[: _LONGEST_CELL - 3] + "..."
