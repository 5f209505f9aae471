"""The bigquery connector: tables by the Storage Read API, views and queries by jobs; whole, by a column, or by partition.

Source: BigQuery API v2 (jobs, tables, datasets), BigQuery Storage API v1 (read sessions).
"""

import itertools
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Annotated, Any, ClassVar

import pyarrow as pa
from pydantic import Field, field_validator

from muxly_dagster.auth import OAuth2, ServiceAccount
from muxly_dagster.connector import Batch, Connector, Cursor, Declaration, Metadata, PullSettings, Stream, Sync
from muxly_dagster.connectors.bigquery import news, partitions
from muxly_dagster.connectors.bigquery.jobs import Jobs, label
from muxly_dagster.connectors.bigquery.refusals import in_words
from muxly_dagster.connectors.bigquery.service import Service, checked_endpoint, signed_in
from muxly_dagster.connectors.bigquery.settings import BigqueryPull
from muxly_dagster.connectors.bigquery.sources import find
from muxly_dagster.errors import MuxlyError
from muxly_dagster.resource import CheckResult

_LIMITS = ("read sessions end after 6 hours", "`max_bytes_billed` for each query")
_MOST_DATASETS, _MOST_TABLES = 100, 2000
_LABEL_KEY = re.compile(r"[a-z][a-z0-9_-]{0,62}")
_LABEL_VALUE = re.compile(r"[a-z0-9_-]{0,63}")


class Bigquery(Connector):
    """Tables, views and queries of Google BigQuery."""

    id: ClassVar[str] = "bigquery"
    title: ClassVar[str] = "Google BigQuery"
    Pull: ClassVar[type[PullSettings]] = BigqueryPull
    example: ClassVar[Mapping[str, Any]] = {"dataset": "shop", "pulls": {"orders": {"key": ["id"], "cursor": "updated_at"}}}

    project: str = Field("", description="The project that the data are in; the credentials' own unless told otherwise.")
    job_project: str = Field("", description="The project that runs and pays for jobs and read sessions; `project` unless told otherwise.")
    location: str = Field(
        "", description="Where the data are, such as EU or europe-north1; BigQuery finds it by the tables unless told otherwise."
    )
    dataset: str = Field("", description="The dataset of tables whose names do not say theirs.")
    auth: Annotated[ServiceAccount | OAuth2, Field(discriminator="kind")] = Field(
        default_factory=ServiceAccount, description="The account to read as; the machine's own identity unless told otherwise."
    )
    max_bytes_billed: int = Field(100 << 30, ge=10 << 20, description="What one query may be billed for at most, in bytes: 100 GiB.")
    labels: dict[str, str] = Field({}, description="Labels of every job, for the bill; `muxly` with the stream's name is added.")
    api_endpoint: str = Field("", description="The address of the BigQuery API, where it is not Google's public one.")
    storage_endpoint: str = Field("", description="The address of the BigQuery Storage API, where it is not Google's public one.")

    @field_validator("api_endpoint", "storage_endpoint")
    @classmethod
    def _is_safe(cls, address: str) -> str:
        return checked_endpoint(address)

    @field_validator("labels")
    @classmethod
    def _are_labels(cls, labels: dict[str, str]) -> dict[str, str]:
        for key, value in labels.items():
            if not _LABEL_KEY.fullmatch(key) or not _LABEL_VALUE.fullmatch(value):
                raise ValueError(f"{key}: {value} is no label: use up to 63 small letters, digits, hyphens and underscores")
        return labels

    @classmethod
    def declaration(cls) -> Declaration:
        """What is known before signing in."""
        return Declaration(
            syncs=("full", "cursor", "delta"),
            metadata=Metadata(api_version="v2", limits=_LIMITS),
            description="Tables by the Storage Read API in parallel streams, views and queries by jobs.",
            docs="https://cloud.google.com/bigquery/docs",
        )

    def stream(self, pull: PullSettings) -> Stream:
        """The stream as declared; its key and types are known when BigQuery is asked."""
        settings = _settings(pull)
        sync: Sync = "delta" if settings.partition else "cursor" if settings.cursor else "full"
        return Stream(pull.stream, tuple(pull.key or ()), sync, deletes=settings.partition)

    def resolve(self, pull: PullSettings) -> Stream:
        """The stream with the table's primary key and its columns' types. Asks BigQuery."""
        settings = _settings(pull)
        with self._open(pull.stream) as (service, jobs):
            source = find(service, jobs, settings, self.dataset)
            columns, fields = partitions.fields_with_partition(source) if settings.partition else (source.columns, source.fields)
        declared = self.stream(pull)
        return Stream(pull.stream, source.key, declared.sync, pa.schema([fields[name] for name in columns]), deletes=declared.deletes)

    def pull(self, pull: PullSettings, cursor: Cursor | None, known: pa.Schema | None) -> Iterator[Batch]:
        """Read the table or query.

        Raises SignInError (with the permission that is missing), RetryLater, SourceError, and ConfigurationError for tables and columns
        that do not exist and for queries that would be billed for too much.
        """
        settings = _settings(pull)
        with self._open(pull.stream) as (service, jobs):
            source = find(service, jobs, settings, self.dataset)
            if settings.partition:
                yield from partitions.by_partition(service, jobs, source, settings, cursor)
            elif source.cursor is not None:
                yield from news.by_cursor(service, jobs, source, settings, cursor)
            else:
                yield from news.everything(service, jobs, source, settings)

    def test_connection(self) -> CheckResult:
        """Dry-run a query that reads nothing, in the project that runs the jobs."""
        tried = f"dry run of SELECT 1 in {self.job_project or self.project or 'the project of the credentials'}"
        try:
            with self._open("") as (service, jobs):
                jobs.plan("SELECT 1")
                return CheckResult(
                    "ok", tried, f"signed in{f' as {service.account}' if service.account else ''}, jobs run in {service.job_project}"
                )
        except MuxlyError as error:
            return CheckResult("failed", tried, error.what, error.do)

    def streams(self) -> list[Stream]:
        """Tables and views by name: `table` in the source's own dataset, `dataset.table` where it has none."""
        with self._open("") as (service, _), in_words(service.project):
            names = [self.dataset] if self.dataset else _datasets(service)
            found = (
                Stream(item.table_id if self.dataset else f"{name}.{item.table_id}", description=_described(item))
                for name in names
                for item in service.rest.list_tables(f"{service.project}.{name}", max_results=_MOST_TABLES, retry=service.retry)
            )
            return list(itertools.islice(found, _MOST_TABLES))

    def metadata(self) -> Metadata:
        """The account and the projects."""
        with self._open("") as (service, _):
            details = {"project": service.project, "job_project": service.job_project, "location": self.location or "found by the tables"}
            return Metadata(service.account or service.project, "v2", None, _LIMITS, details)

    def check_pull(self, pull: PullSettings) -> Sequence[str]:
        """What a dry run finds wrong: names, types, rights, bytes."""
        try:
            with self._open(pull.stream) as (service, jobs):
                source = find(service, jobs, _settings(pull), self.dataset)
                if _settings(pull).partition:
                    partitions.Partitioning.of(source)
                if not source.path and source.table is not None:
                    jobs.checked(source.query, source.parameters)
        except MuxlyError as error:
            return [f"{error.what}{f'; {error.do}' if error.do else ''}"]
        return ()

    def preview_notes(self, pull: PullSettings) -> Sequence[str]:
        """The bytes of a whole pull, by a dry run. Raises as `pull` does."""
        with self._open(pull.stream) as (service, jobs):
            source = find(service, jobs, _settings(pull), self.dataset)
            size = jobs.plan(*source.after(None)).bytes
        way = "by the Storage Read API" if source.path else f"by a query, of at most {self.max_bytes_billed:,} that it may be billed for"
        return [f"a whole pull reads {size:,} bytes {way}"]

    @contextmanager
    def _open(self, stream: str) -> Iterator[tuple[Service, Jobs]]:
        labels = dict(self.labels) | ({"muxly": label(stream)} if stream else {"muxly": "muxly"})
        with signed_in(
            self.auth,
            project=self.project,
            job_project=self.job_project,
            location=self.location,
            api_endpoint=self.api_endpoint,
            storage_endpoint=self.storage_endpoint,
        ) as service:
            yield service, Jobs(service, self.max_bytes_billed, labels, service.project)


def _settings(pull: PullSettings) -> BigqueryPull:
    return pull if isinstance(pull, BigqueryPull) else BigqueryPull.model_validate(pull.model_dump())


def _datasets(service: Service) -> list[str]:
    return [item.dataset_id for item in service.rest.list_datasets(service.project, max_results=_MOST_DATASETS, retry=service.retry)]


def _described(item: Any) -> str:
    return "" if item.table_type == "TABLE" else str(item.table_type or "").lower().replace("_", " ")
