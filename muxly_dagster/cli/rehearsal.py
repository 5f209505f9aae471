"""What `muxly rules test` tells."""

from dataclasses import asdict

from muxly_dagster import records
from muxly_dagster.cli import opening, terminal
from muxly_dagster.errors import ConfigurationError
from muxly_dagster.measures import parse_duration
from muxly_dagster.rehearsing import Difference


def test(route: str, since: str, *, json: bool) -> None:
    """Compare the rules of today with those that decided, over the changes of the last while."""
    try:
        length = parse_duration(since)
    except ValueError as error:
        raise ConfigurationError(f"--since {since} {error}") from None
    with opening.runtime() as runtime:
        differences = runtime.compare_rules(route, length)
    if json:
        terminal.print_json([asdict(each) for each in differences])
        return
    columns = ["destination", "went", "would go", "added", "removed", "not delivered yet"]
    rows = [[each.destination, each.before, each.now, each.added, each.removed, each.undecided] for each in differences]
    terminal.print_table(columns, rows, numbers=columns[1:])
    for each in differences:
        _tell(each)
    if not any(each.added or each.removed for each in differences):
        terminal.say(f"{route}: the rules would have sent everything where it went")


def _tell(difference: Difference) -> None:
    if difference.examples:
        terminal.out.print(f"\n{difference.destination}", style="bold", markup=False)
    for example in difference.examples:
        what = f"would go there, by {example['now']}" if example["now"] else f"would not go there; it went by {example['was']}"
        terminal.out.print(f"  {example['id']} (key {example['key']!r}): {what}", markup=False)
        terminal.out.print(f"    {records.to_json(example['data']).decode()}", markup=False)
