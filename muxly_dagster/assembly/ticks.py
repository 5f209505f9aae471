"""The moments of a job's cron, as Dagster reads it."""

import datetime as dt
import time
from collections.abc import Iterator

from dagster._utils.schedules import schedule_execution_time_iterator

from muxly_dagster.project.models import JobSpec


def upcoming(spec: JobSpec, after: dt.datetime) -> Iterator[dt.datetime]:
    """The moments (UTC) behind this one, without end; none where the job has no cron.

    By the clock of the job's time zone: what falls into the hour that is skipped in spring comes right behind it, and what falls into the
    hour that comes twice in autumn comes once, the second time; `*` in the field of hours means every hour that there is.
    """
    if spec.cron:
        start = int(after.timestamp()) + 1
        yield from (tick.astimezone(dt.UTC) for tick in schedule_execution_time_iterator(start, spec.cron, spec.timezone))


def passed(spec: JobSpec, after: dt.datetime, before: dt.datetime) -> Iterator[dt.datetime]:
    """The moments (UTC) between two, the newest first: of a long time, whoever wants some of them need not wait for all."""
    if spec.cron:
        newest_first = schedule_execution_time_iterator(before.timestamp() - 1, spec.cron, spec.timezone, ascending=False)
        for tick in newest_first:
            if tick.timestamp() <= after.timestamp():
                return
            yield tick.astimezone(dt.UTC)


def ever_comes(cron: str) -> bool:
    """Whether Dagster finds a moment for an expression: for some that look right, such as `0 0 31 4 mon`, it finds none."""
    try:
        next(schedule_execution_time_iterator(time.time(), cron, "UTC"))
    except ValueError:
        return False
    return True
