"""How far deliveries have come, kept in the dataset: the table `_muxly_offsets`, to which rows are only ever added.

A row is never changed, since BigQuery cancels transactions that change one table at the same time, and lets those that only insert run
side by side. Of a delivery and lake table, the row of the highest `version` counts. Two kinds of rows tell two stories:

- `seq` alone: everything up to `seq` is in the target;
- with `job` and `upto`, a promise: `seq` is in the target, and if the load job `job` has ended well, everything up to `upto` is. It is
  written before the job is sent, so whoever comes after a crash asks BigQuery how the job ended. Where there is no such job, one that does
  nothing uses its id up, so that a request that is still on its way cannot load anything any more.

Source: "Multi-statement transactions", transaction concurrency; jobs.insert (an id is taken once).
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from muxly_dagster.destinations.bigquery.service import Service
from muxly_dagster.errors import RetryLater

OFFSETS = "_muxly_offsets"
_COLUMNS = {
    "delivery": "STRING",
    "table_id": "STRING",
    "target": "STRING",
    "version": "INTEGER",
    "seq": "INTEGER",
    "upto": "INTEGER",
    "job": "STRING",
    "run_id": "STRING",
    "at": "TIMESTAMP",
}
_LATEST = (
    "SELECT delivery, target, version, seq, upto, job, COUNT(*) OVER (PARTITION BY delivery) AS held FROM {offsets}"
    " WHERE table_id = @table_id AND (delivery = @delivery OR target = @target)"
    " QUALIFY RANK() OVER (PARTITION BY delivery ORDER BY version DESC) = 1"
)
_PRUNED_AT = 1000
"""From so many rows of one delivery on, those that no longer count are deleted."""

_JOB_SECONDS = 600.0


@dataclass(frozen=True, slots=True)
class Latest:
    """Where a delivery stands: `version` 0 and no `seq` before its first. `begun`: some delivery of this lake table got to the target.

    `target` is the table that the delivery went to.
    """

    version: int = 0
    seq: int | None = None
    begun: bool = False
    target: str = ""


@dataclass(frozen=True, slots=True)
class Offsets:
    """The offset of one delivery of one lake table."""

    service: Service
    delivery_id: str
    table_id: str
    target: str = ""
    run_id: str = ""

    @property
    def table(self) -> str:
        """The table of offsets, for GoogleSQL."""
        return self.service.quoted(OFFSETS)

    def life(self) -> str:
        """What tells this table of offsets from one that was there before under its name; makes the table if there is none."""
        from google.api_core.exceptions import NotFound
        from google.cloud import bigquery

        client, name = self.service.client, self.service.name(OFFSETS)
        try:
            found = client.get_table(name, **self.service.asking)
        except NotFound:
            wanted = bigquery.Table(name, [bigquery.SchemaField(column, kind) for column, kind in _COLUMNS.items()])
            wanted.description = "Muxly keeps here how far its deliveries have come. Without it, changes are delivered twice."
            wanted.labels = self.service.labels
            found = client.create_table(wanted, exists_ok=True, **self.service.asking)
        return found.created.isoformat() if found.created else ""

    def latest(self) -> Latest:
        """Where the delivery stands. What a promise came to is asked for and written down. Raises what BigQuery's answers mean."""
        from google.api_core.exceptions import NotFound

        try:
            rows = self._asked(_LATEST.format(offsets=self.table))
        except NotFound as error:
            if OFFSETS not in str(error):
                raise
            return Latest()
        own = [row for row in rows if row["delivery"] == self.delivery_id]
        reached = [int(row["seq"]) for row in own if row["seq"] is not None]
        begun = any(row["seq"] is not None for row in rows if row["target"] == self.target)
        if not own:
            return Latest(begun=begun)
        version, target = int(own[0]["version"]), str(own[0]["target"])
        promised = [row for row in own if row["job"]]
        reached += [int(row["upto"]) for row in promised if ended_well(self.service, str(row["job"]))]
        found = Latest(version, max(reached, default=None), begun or (bool(reached) and target == self.target), target)
        if promised:
            found = replace(self, target=target).keep(found, found.seq)
        if int(own[0]["held"]) > _PRUNED_AT:
            self._asked(
                f"DELETE FROM {self.table} WHERE delivery = @delivery AND table_id = @table_id AND version < @version",
                version=found.version,
            )
        return found

    def promise(self, before: Latest, upto: int, job: str) -> None:
        """Say that a load job is about to be sent. Raises RetryLater where somebody else has just promised other rows of this delivery."""
        rows = self._asked(
            f"{_row(before.seq, promised=True)}; {_LATEST}".format(offsets=self.table),
            version=before.version + 1,
            seq=before.seq,
            upto=upto,
            job=job,
        )
        own = [row for row in rows if row["delivery"] == self.delivery_id]
        if any(row["job"] != job for row in own):
            raise RetryLater(
                "another run delivers the same changes at this moment", do="wait for it to end", where=self.service.name(self.target)
            )

    def keep(self, before: Latest, seq: int | None) -> Latest:
        """Write down that everything up to `seq` is in the target."""
        self._asked(_row(seq).format(offsets=self.table), version=before.version + 1, seq=seq)
        return Latest(before.version + 1, seq, before.begun or seq is not None, self.target)

    def forget_letters(self, seq: int) -> None:
        """Have the dead letters of this delivery beyond `seq` taken again: one that is refused anew has the id that it had before."""
        from google.api_core.exceptions import NotFound

        try:
            self._asked(
                f"INSERT INTO {self.table} (delivery, table_id, target, version, seq, run_id, at)"
                " SELECT delivery, table_id, ANY_VALUE(target), MAX(version) + 1, NULL, @run_id, CURRENT_TIMESTAMP()"
                f" FROM {self.table} WHERE table_id = @table_id AND STARTS_WITH(delivery, CONCAT(@delivery, '/'))"
                " GROUP BY delivery, table_id HAVING MAX(seq) > @seq OR MAX(upto) > @seq",
                seq=seq,
            )
        except NotFound as error:
            if OFFSETS not in str(error):
                raise

    @property
    def unmoved(self) -> str:
        """A condition in GoogleSQL: nobody has moved the offset since version `@version` was read."""
        held = f"SELECT IFNULL(MAX(version), 0) FROM {self.table} WHERE delivery = @delivery AND table_id = @table_id"
        return f"({held}) = @version"

    @property
    def move(self) -> str:
        """A statement that moves the offset to `@seq` if nobody else has."""
        return (
            f"INSERT INTO {self.table} (delivery, table_id, target, version, seq, run_id, at)"
            f" SELECT @delivery, @table_id, @target, @version + 1, @seq, @run_id, CURRENT_TIMESTAMP() FROM (SELECT 1) WHERE {self.unmoved}"
        )

    def parameters(self, **more: int | str | None) -> list[Any]:
        """Parameters of the statements here, and of `more`: numbers `version`, `seq`, `upto`, the text `job`."""
        from google.cloud import bigquery

        texts = {"delivery": self.delivery_id, "table_id": self.table_id, "target": self.target, "run_id": self.run_id}
        made = [bigquery.ScalarQueryParameter(name, "STRING", value) for name, value in texts.items()]
        given = {name: value for name, value in more.items() if value is not None}
        return made + [bigquery.ScalarQueryParameter(name, "STRING" if name == "job" else "INT64", value) for name, value in given.items()]

    def _asked(self, sql: str, **more: int | str | None) -> Sequence[Any]:
        return run(self.service, sql, self.parameters(**more))


def _row(seq: int | None, *, promised: bool = False) -> str:
    """A statement that adds a row."""
    reached, rest = "NULL" if seq is None else "@seq", "@upto, @job" if promised else "NULL, NULL"
    return (
        "INSERT INTO {offsets} (delivery, table_id, target, version, seq, upto, job, run_id, at)"
        f" VALUES (@delivery, @table_id, @target, @version, {reached}, {rest}, @run_id, CURRENT_TIMESTAMP())"
    )


def run(service: Service, sql: str, parameters: Sequence[Any] = (), *, job_id: str | None = None) -> Sequence[Any]:
    """Run statements to the end; the rows of the last SELECT among them. With `job_id`, raises Conflict where the id is taken."""
    from google.cloud import bigquery

    config = bigquery.QueryJobConfig(query_parameters=list(parameters), labels=service.labels, use_legacy_sql=False, use_query_cache=False)
    named = {"job_id": job_id} if job_id else {"job_id_prefix": "muxly-"}
    # The client's own way to run jobs again goes on for ten minutes at least, and would take a new id.
    job = service.client.query(sql, job_config=config, location=service.location, job_retry=None, **service.asking, **named)
    return list(job.result(retry=service.retry, job_retry=None, timeout=_JOB_SECONDS))


def ended_well(service: Service, job_id: str) -> bool:
    """Whether a load job has loaded its file. It is waited for; an id that no job has will never belong to a load job from now on."""
    from google.api_core.exceptions import Conflict, NotFound

    try:
        job = service.client.get_job(job_id, location=service.location, **service.asking)
    except NotFound:
        try:
            run(service, "SELECT 1", job_id=job_id)
            return False
        except Conflict:
            job = service.client.get_job(job_id, location=service.location, **service.asking)
    return job.job_type == "load" and _outcome(service, job)


def _outcome(service: Service, job: Any) -> bool:
    from google.api_core.exceptions import GoogleAPICallError

    try:
        job.result(retry=service.retry, timeout=_JOB_SECONDS)
    except GoogleAPICallError:
        if job.state == "DONE" and job.error_result:
            return False
        raise
    return True
