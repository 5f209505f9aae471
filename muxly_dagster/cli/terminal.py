"""What the command prints: words and tables on a terminal, plain lines without one, JSON for machines."""

import sys
from collections.abc import Sequence
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from muxly_dagster import records
from muxly_dagster.errors import ConfigurationError, MuxlyError

_UNBROKEN = 10_000  # columns: output that goes to a file or a pipe is not wrapped

out = Console(highlight=False, soft_wrap=True, width=None if sys.stdout.isatty() else _UNBROKEN)
err = Console(stderr=True, highlight=False, soft_wrap=True)


def say(text: str) -> None:
    """A line for the person, on standard error so that standard output stays for results."""
    err.print(Text(text))


def fail(error: MuxlyError) -> None:
    """An error as people read it: every problem on its own line."""
    if isinstance(error, ConfigurationError) and error.problems and error.problems[0].file:
        count = len(error.problems)
        err.print(Text(f"{count} problem{'s' if count != 1 else ''} found", style="bold red"))
        for problem in error.problems:
            err.print(Text(str(problem)))
        return
    err.print(Text("error: ", style="bold red") + Text(str(error)))


def print_json(value: Any) -> None:
    """JSON on standard output, in the form records have everywhere."""
    sys.stdout.buffer.write(records.to_json(value) + b"\n")
    sys.stdout.flush()


def print_table(columns: Sequence[str], rows: Sequence[Sequence[Any]], *, numbers: Sequence[str] = ()) -> None:
    """Rows under headings. The first column is never cut; without a terminal nothing is, however wide."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    for at, column in enumerate(columns):
        right = column in numbers
        table.add_column(column, justify="right" if right else "left", no_wrap=right or at == 0, overflow="fold")
    for row in rows:
        table.add_row(*(Text("" if value is None else f"{value:,}" if isinstance(value, int) else str(value)) for value in row))
    out.print(table, soft_wrap=False)
