"""The moments of a job's cron, as Dagster reads it."""

import datetime as dt
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
