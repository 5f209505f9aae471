"""The `bigquery` destination: rows into a table of Google BigQuery, exactly once, by load jobs and MERGE.

The offset is kept in the dataset, in the table `_muxly_offsets`. Where rows are merged, it moves in the transaction that merges them. Where
they are only added, the load job's id is written down before the job is sent, and BigQuery, which takes an id once, knows how it ended.

Source: BigQuery API v2 (jobs, tables, datasets), "Multi-statement transactions", "Quotas and limits".
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field, PrivateAttr, field_validator, model_validator

from muxly_dagster.auth import OAuth2, ServiceAccount
from muxly_dagster.destination import Delivery, Destination, Guarantee, Plan, Receipt
from muxly_dagster.destinations.bigquery.landing import Landing, column_name, lay_out
from muxly_dagster.destinations.bigquery.refusals import in_words
from muxly_dagster.destinations.bigquery.service import Identity, Service, checked_endpoint, signed_in
from muxly_dagster.errors import ConfigurationError, MuxlyError
from muxly_dagster.landing import Mode, RecordColumn
from muxly_dagster.resource import CheckResult

_TABLE = re.compile(r"[^`\\.:/@$\s][^`\\.:/@$]{0,1023}")
_DATASET = re.compile(r"\w{1,1024}", re.ASCII)
_PROJECT = re.compile(r"(?:[a-z0-9.-]+:)?[a-z][a-z0-9-]*")
_NOT_IN_A_LABEL = re.compile(r"[^a-z0-9_-]")
_WRITING = ("bigquery.tables.get", "bigquery.tables.getData", "bigquery.tables.updateData", "bigquery.tables.update")


class Bigquery(Destination):
    """A table in Google BigQuery. Creates it, adds columns as they appear and keeps it in step with the source."""

    type: ClassVar[str] = "bigquery"
    title: ClassVar[str] = "Google BigQuery"
    batch_rows: ClassVar[int] = 500_000
    guarantee: ClassVar[Guarantee] = "exactly once"
    keeps_offset: ClassVar[bool] = True
    bulk: ClassVar[bool] = True
    example: ClassVar[Mapping[str, Any]] = {"dataset": "mart", "mode": "mirror"}

    project: str = Field("", description="The project that the dataset is in; the credentials' own unless told otherwise.")
    job_project: str = Field("", description="The project that runs and pays for jobs; `project` unless told otherwise.")
    dataset: str = Field(description="The dataset that the table is in. It must be there: its place and its readers are yours to choose.")
    location: str = Field("", description="Where the dataset is, such as EU or europe-north1; BigQuery is asked unless told otherwise.")
    auth: Annotated[ServiceAccount | OAuth2, Field(discriminator="kind")] = Field(
        default_factory=ServiceAccount, description="The account to write as; the machine's own identity unless told otherwise."
    )
    table: str = Field(
        "", description="The table's name; what it comes from, with dots as underscores (`crm_deals`), unless told otherwise."
    )
    mode: Mode = Field(
        "upsert",
        description="append: every change is a new row. upsert: one row per key. mirror: upsert, and what the source deleted is deleted. "
        "replace: mirror, and the table is emptied before the first delivery.",
    )
    deletes: bool | None = Field(
        None, description="Delete rows that the source deleted. On for mirror and replace, off for upsert unless told otherwise."
    )
    columns: dict[str, str] = Field({}, description="Other names for columns: `{createdate: created_at}`.")
    record_columns: list[RecordColumn] | None = Field(
        None,
        description="What to store about each change besides its data, as `_muxly_...` columns; `[seq, op, at]` for append, else none.",
    )
    evolve: bool = Field(True, description="Create the table, add columns and widen types as the source's change; false: fail instead.")
    partition_by: str = Field("", description="The date or time column that a table which Muxly creates is partitioned by.")
    partition_unit: Literal["hour", "day", "month", "year"] = Field("day", description="How much time one partition holds.")
    cluster_by: list[str] = Field([], max_length=4, description="The columns that a table which Muxly creates is clustered by.")
    api_endpoint: str = Field("", description="The address of the BigQuery API, where it is not Google's public one.")

    _identity: Identity | None = PrivateAttr(None)

    @field_validator("api_endpoint")
    @classmethod
    def _is_safe(cls, address: str) -> str:
        return checked_endpoint(address)

    @field_validator("project", "job_project")
    @classmethod
    def _is_a_project(cls, name: str) -> str:
        if name and not _PROJECT.fullmatch(name):
            raise ValueError(f"{name} is no project's id: small letters, digits and hyphens")
        return name

    @field_validator("dataset")
    @classmethod
    def _is_a_dataset(cls, name: str) -> str:
        if not _DATASET.fullmatch(name):
            raise ValueError(f"{name!r} is no dataset's name: letters, digits and underscores; the project has a field of its own")
        return name

    @field_validator("table")
    @classmethod
    def _is_a_table(cls, name: str) -> str:
        if name and not _TABLE.fullmatch(name):
            raise ValueError(f"{name!r} is no table's name; project and dataset have fields of their own")
        return name

    @model_validator(mode="after")
    def _consistent(self) -> "Bigquery":
        if self.mode == "append" and self.deletes:
            raise ValueError("`mode: append` keeps every change as a row and deletes none; use `mode: mirror`, or leave `deletes` out")
        if self.mode in ("mirror", "replace") and self.deletes is False:
            raise ValueError(f"`mode: {self.mode}` deletes what the source deleted; use `mode: upsert` to keep it")
        wrong = next((name for name in self.columns.values() if column_name(name) != name), None)
        if wrong is not None:
            raise ValueError(f"BigQuery takes no column named {wrong!r}; {column_name(wrong)!r} would do")
        return self

    @property
    def passes_deletes(self) -> bool:
        """Whether rows are deleted here when the source deletes them."""
        return self.mode in ("mirror", "replace") if self.deletes is None else self.deletes

    @property
    def one_row_per_key(self) -> bool:
        """Whether a key has one row, which its newest change is."""
        return self.mode != "append"

    def deliver(self, delivery: Delivery) -> Receipt:
        """Write the rows and the offset; a stretch that was written already is left alone."""
        from muxly_dagster.destinations.bigquery.writing import write

        with self._open(delivery.table, delivery.id) as service:
            written = write(service, self._landing(delivery), self._layout)
        detail: dict[str, object] = {
            "table": self.public_name(delivery.table),
            "rows_written": written.written,
            "rows_deleted": written.deleted,
        }
        if written.repeated:
            detail["repeated"] = True
        if written.evolved:
            detail["table_changes"] = list(written.evolved)
        return Receipt(len(delivery.rows), detail=detail)

    def position(self, delivery_id: str, table_id: str) -> int | None:
        """The seq that the dataset holds; None before the first delivery. A load job that nobody has heard the end of is waited for."""
        from muxly_dagster.destinations.bigquery.offsets import Offsets

        with self._open("", delivery_id) as service:
            return Offsets(service, delivery_id, table_id).latest().seq

    def rewind(self, delivery_id: str, table_id: str, seq: int) -> None:
        """Forget that anything after `seq` was delivered, so that it is taken again: by the delivery, and by its dead letters' replays."""
        from muxly_dagster.destinations.bigquery.offsets import Offsets

        with self._open("", delivery_id) as service:
            offsets = Offsets(service, delivery_id, table_id)
            latest = offsets.latest()
            if latest.seq is not None and latest.seq > seq:
                replace(offsets, target=latest.target).keep(latest, seq)
            offsets.forget_letters(seq)

    def plan(self, delivery: Delivery) -> Plan:
        """What a delivery would do. The keys go to BigQuery in a table of their own, which is deleted at the end."""
        from muxly_dagster.destinations.bigquery.writing import plan

        with self._open(delivery.table, delivery.id) as service:
            return plan(service, self._landing(delivery))

    def check(self) -> CheckResult:
        """Dry-run a job, look at the dataset, and ask which permissions there are on what is there already; nothing is written."""
        tried = f"dry run of a query, and the dataset {'.'.join(filter(None, [self.project, self.dataset]))}"
        try:
            with self._open("", "") as service:
                return CheckResult("ok", tried, _checked(service, self.table, stages=self.mode != "append"))
        except MuxlyError as error:
            return CheckResult.failed(tried, error)

    def public_name(self, table: str) -> str:
        """Project, dataset and table."""
        return ".".join(filter(None, [self.project, self.dataset, self._table(table)]))

    @property
    def _layout(self) -> Any:
        from muxly_dagster.destinations.bigquery.tables import Layout

        return Layout(self.partition_by, self.partition_unit, tuple(self.cluster_by))

    def _landing(self, delivery: Delivery) -> Landing:
        shown: Sequence[RecordColumn] = ["seq", "op", "at"] if self.mode == "append" else []
        return lay_out(
            delivery,
            table=self._table(delivery.table),
            mode=self.mode,
            deletes=self.passes_deletes,
            evolve=self.evolve,
            rename=self.columns,
            record_columns=shown if self.record_columns is None else self.record_columns,
        )

    def _table(self, table: str) -> str:
        return self.table or re.sub(r"[.`\\:/@$]", "_", table)

    @contextmanager
    def _open(self, table: str, delivery_id: str) -> Iterator[Service]:
        if self._identity is None or self._identity.auth is not self.auth:
            self._identity = Identity(self.auth)
        with (
            signed_in(
                self._identity,
                project=self.project,
                job_project=self.job_project,
                dataset=self.dataset,
                location=self.location,
                api_endpoint=self.api_endpoint,
                label=_NOT_IN_A_LABEL.sub("_", delivery_id.lower())[:63],
            ) as service,
            in_words(service.name(self._table(table)) if table else f"{service.project}.{service.dataset}"),
        ):
            yield service


def _checked(service: Service, table: str, *, stages: bool) -> str:
    """What is found, in words. Raises what BigQuery's answers mean, and ConfigurationError naming what is not permitted."""
    from google.cloud import bigquery

    from muxly_dagster.destinations.bigquery.offsets import OFFSETS
    from muxly_dagster.destinations.bigquery.tables import found

    client, asking = service.client, service.asking

    def rehearse(sql: str) -> None:
        dry = bigquery.QueryJobConfig(dry_run=True, use_query_cache=False)
        client.query(sql, job_config=dry, location=service.location, job_retry=None, **asking)

    rehearse("SELECT 1")
    client.get_dataset(f"{service.project}.{service.dataset}", **asking)
    wanted = [name for name in (OFFSETS, table) if name]
    present = [name for name in wanted if found(service, name) is not None]
    for name in present:
        held = client.test_iam_permissions(service.name(name), _WRITING, **asking).get("permissions", [])
        lacking = [permission for permission in _WRITING if permission not in held]
        if lacking:
            raise ConfigurationError(
                f"the account may not write {service.name(name)}: it lacks {', '.join(lacking)}",
                do="grant the account BigQuery Data Editor on the dataset",
            )
    # Both are told a wrong `location`, too, which the dataset's own description does not depend on.
    if OFFSETS in present:
        rehearse(f"SELECT 1 FROM {service.quoted(OFFSETS)}")
    if stages or present != wanted:
        rehearse(f"CREATE TABLE {service.quoted('_muxly_stage_check')} (delivery STRING)")
    who = f" as {service.account}" if service.account else ""
    return f"signed in{who}; {service.project}.{service.dataset} is in {service.location}, and its tables can be written"
