"""The webhook connector: the calls of jobs' webhooks as streams, each record once.

Calls are kept by the API (`POST /v1/hooks/JOB`) and stay for a while after they were pulled, so several pulls may read the same ones.
"""

from collections.abc import Iterator, Mapping
from typing import Any, ClassVar

import pyarrow as pa
from pydantic import Field

from muxly_dagster.connector import Batch, Connector, Cursor, Declaration, PullSettings, Stream
from muxly_dagster.connectors.webhook.reading import COLUMNS, OWN, read
from muxly_dagster.resource import CheckResult


class WebhookPull(PullSettings):
    """Whose calls, and what of them becomes columns."""

    job: str = Field("", description="The job whose webhook is called; the pull's own name unless told otherwise.")
    flatten: bool = Field(
        False, description="Whether the payload's own fields become columns; else the whole payload is one, beside headers and query."
    )


class Webhook(Connector):
    """What other services send to the webhooks of this project's jobs."""

    id: ClassVar[str] = "webhook"
    title: ClassVar[str] = "Webhooks (calls of jobs)"
    Pull: ClassVar[type[PullSettings]] = WebhookPull
    example: ClassVar[Mapping[str, Any]] = {"pulls": {"deals": {"job": "on_deal"}}}

    @classmethod
    def declaration(cls) -> Declaration:
        """There is a stream for every job with a webhook."""
        return Declaration(syncs=("cursor",), description="Reads the calls of jobs' webhooks that Muxly's API has taken.")

    def stream(self, pull: PullSettings) -> Stream:
        """The calls of one job, in the order in which they were kept."""
        job, flatten = job_of(pull), isinstance(pull, WebhookPull) and pull.flatten
        # A closed contract begins with what the first payloads hold.
        schema = None if flatten and pull.contract not in (None, "evolve") else OWN if flatten else COLUMNS
        return Stream(job, key=tuple(pull.key or ()), sync="cursor", schema=schema, description=f"Calls of the webhook of {job}.")

    def pull(self, pull: PullSettings, cursor: Cursor | None, known: pa.Schema | None) -> Iterator[Batch]:
        """Read the calls that came since. Raises RetryLater where they cannot be read."""
        flatten = isinstance(pull, WebhookPull) and pull.flatten
        yield from read(self.services.calls, job_of(pull), cursor["seq"] if cursor else 0, known, flatten=flatten)

    def streams(self) -> list[Stream]:
        """The jobs that were called."""
        return [Stream(job, sync="cursor", schema=COLUMNS) for job in self.services.calls.jobs()]

    def test_connection(self) -> CheckResult:
        """Look which jobs were called."""
        jobs = self.services.calls.jobs()
        return CheckResult("ok", "look for calls", f"there are calls of {', '.join(jobs)}" if jobs else "no job was called yet")


def job_of(pull: PullSettings) -> str:
    """The job whose calls a pull reads."""
    return (pull.job if isinstance(pull, WebhookPull) else "") or pull.stream
