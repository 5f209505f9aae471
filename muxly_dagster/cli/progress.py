"""How far a run has come: a bar on a terminal, a plain line now and then without one."""

import time
from collections.abc import Iterator
from contextlib import contextmanager

from muxly_dagster.cli import terminal
from muxly_dagster.outcome import Progress, Watch

_SECONDS_BETWEEN_LINES = 5.0


@contextmanager
def shown(watch: Watch, assets: int) -> Iterator[None]:
    """Tell the person how far the run that `watch` looks on has come, while the `with` lasts; `assets` is how many it runs."""
    if not terminal.err.is_terminal:
        watch.progress = _lines()
        yield
        return
    from rich.progress import BarColumn, SpinnerColumn, TextColumn, TimeElapsedColumn
    from rich.progress import Progress as Bars

    columns = (SpinnerColumn(), TextColumn("{task.description}", markup=False), BarColumn(20), TextColumn("{task.fields[count]}"))
    with Bars(*columns, TimeElapsedColumn(), console=terminal.err, transient=True) as bars:
        everything = bars.add_task("running", total=assets, count=f"0 of {assets} assets")
        now = ""
        task = bars.add_task("", total=None, visible=False, count="")

        def show(asset: str, count: int) -> None:
            nonlocal now
            if asset != now:
                now = asset
                bars.reset(task, description=asset, visible=True)
            bars.update(task, count=f"{count:,} records")
            done = len(watch.outcomes)
            bars.update(everything, completed=done, count=f"{done} of {assets} assets")

        watch.progress = show
        yield


def _lines() -> Progress:
    """A line when an asset has been at it for some seconds, so that what is quick says nothing before the table does."""
    now, last = "", 0.0

    def line(asset: str, count: int) -> None:
        nonlocal now, last
        if asset != now:
            now, last = asset, time.monotonic()
        elif time.monotonic() - last >= _SECONDS_BETWEEN_LINES:
            last = time.monotonic()
            terminal.say(f"{asset}: {count:,} records so far")

    return line
