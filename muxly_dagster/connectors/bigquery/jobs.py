"""Query jobs: labelled, limited in what they may cost, and looked through before they run."""

import datetime as dt
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from muxly_dagster.connectors.bigquery.refusals import in_words, too_many_bytes
from muxly_dagster.connectors.bigquery.service import Service
from muxly_dagster.errors import ConfigurationError

_NOT_IN_A_LABEL = re.compile(r"[^a-z0-9_-]")


@dataclass(frozen=True, slots=True)
class Plan:
    """What a dry run tells: bytes that would be read, the statement's type (`SELECT`), and the result's columns."""

    bytes: int
    statement: str
    fields: Sequence[Any]


@dataclass(frozen=True, slots=True)
class Jobs:
    """Runs queries in the project that pays for them. `labels` and `max_bytes` (billed) go with every job."""

    service: Service
    max_bytes: int
    labels: Mapping[str, str] = field(default_factory=dict)
    where: str = ""

    def plan(self, sql: str, parameters: Sequence[Any] = ()) -> Plan:
        """A dry run: nothing is read and nothing is billed. Raises ConfigurationError, SignInError, RetryLater."""
        with in_words(self.where):
            job = self._submitted(sql, parameters, dry_run=True)
            return Plan(int(job.total_bytes_processed or 0), str(job.statement_type or ""), job.schema or [])

    def checked(self, sql: str, parameters: Sequence[Any] = ()) -> Plan:
        """A dry run of a query that is about to run. Raises ConfigurationError too for what is no SELECT, and for too many bytes."""
        plan = self.plan(sql, parameters)
        if plan.statement not in ("", "SELECT"):
            raise ConfigurationError(f"the query is a {plan.statement}, and a pull only reads", do="write one SELECT", where=self.where)
        if plan.bytes > self.max_bytes:
            raise too_many_bytes(f"{plan.bytes:,} bytes, and `max_bytes_billed` is {self.max_bytes:,}", self.where)
        return plan

    def run(self, sql: str, parameters: Sequence[Any] = ()) -> str:
        """Run to the end; the table that holds the result, as a path of the Storage Read API."""
        job, _ = self._finished(sql, parameters)
        result = job.destination
        return f"projects/{result.project}/datasets/{result.dataset_id}/tables/{result.table_id}"

    def rows(self, sql: str, parameters: Sequence[Any] = ()) -> list[Any]:
        """The rows of a small result."""
        with in_words(self.where):
            return list(self._finished(sql, parameters)[1])

    def now(self) -> dt.datetime:
        """BigQuery's own clock: this machine's may be ahead of it, and a snapshot in the future is refused. Bills nothing."""
        moment: dt.datetime = self.rows("SELECT CURRENT_TIMESTAMP()")[0][0]
        return moment

    def _finished(self, sql: str, parameters: Sequence[Any]) -> tuple[Any, Any]:
        """A job that has ended well, and its rows, none of which was fetched yet. One that failed in passing is run again."""
        from google.api_core.retry import Retry

        def finished() -> tuple[Any, Any]:
            job = self._submitted(sql, parameters)
            return job, job.result(retry=self.service.retry, job_retry=None)

        with in_words(self.where):
            made: tuple[Any, Any] = Retry(_failed_in_passing, initial=0.2, timeout=self.service.retry.timeout)(finished)()
            return made

    def _submitted(self, sql: str, parameters: Sequence[Any], *, dry_run: bool = False) -> Any:
        from google.cloud import bigquery  # a large import, which listing and checking a project can do without

        config = bigquery.QueryJobConfig(
            dry_run=dry_run,
            query_parameters=list(parameters),
            labels=dict(self.labels),
            maximum_bytes_billed=self.max_bytes,
            use_legacy_sql=False,
        )
        if dry_run:
            config.use_query_cache = False  # else a result that is still there would read nothing
        # The client's own way to run jobs again goes on for ten minutes at least where Google cannot be reached.
        return self.service.rest.query(sql, job_config=config, job_id_prefix="muxly-", retry=self.service.retry, job_retry=None)


def _failed_in_passing(error: Exception) -> bool:
    reasons = {item.get("reason") for item in getattr(error, "errors", ()) if isinstance(item, dict)}
    return bool(reasons & {"jobBackendError", "jobInternalError", "jobRateLimitExceeded"})


def label(text: str) -> str:
    """A text as a label's value: lower case letters, digits, hyphens and underscores, at most 63."""
    return _NOT_IN_A_LABEL.sub("_", text.lower())[:63]
