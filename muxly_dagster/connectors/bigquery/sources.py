"""What a pull reads, checked against what BigQuery has: a table that can be read as it lies, or a query that stands for it."""

from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa

from muxly_dagster.connectors.bigquery.jobs import Jobs
from muxly_dagster.connectors.bigquery.parameters import client_parameters
from muxly_dagster.connectors.bigquery.positions import CursorColumn
from muxly_dagster.connectors.bigquery.refusals import in_words
from muxly_dagster.connectors.bigquery.service import Service
from muxly_dagster.connectors.bigquery.settings import CURSOR_PARAMETER, BigqueryPull
from muxly_dagster.connectors.bigquery.types import lake_field
from muxly_dagster.errors import ConfigurationError, MuxlyError
from muxly_dagster.project.checks import did_you_mean

_MOST_NAMES = 1000
"""So many tables (or datasets) are listed, at most, to find the name that was meant."""

_READ_AS_THEY_LIE = ("TABLE", "SNAPSHOT")
"""Types of tables that the Storage Read API reads. Views of all kinds, and external tables without a connection, need a query."""


@dataclass(frozen=True, slots=True)
class Source:
    """`path` is the table's in the Storage Read API, or empty; then `query` is what to run. `fields` are the columns in the lake.

    `table` is Google's own description of a table or view (None for a query of the user's).
    """

    where: str
    fields: Mapping[str, pa.Field]
    columns: tuple[str, ...]
    key: tuple[str, ...] = ()
    cursor: CursorColumn | None = None
    path: str = ""
    query: str = ""
    parameters: Sequence[Any] = ()
    table: Any = field(default=None, repr=False)

    @property
    def schema(self) -> pa.Schema:
        """The columns that are read, in the lake's types."""
        return pa.schema([self.fields[name] for name in self.columns])

    def after(self, value: Any) -> tuple[str, list[Any]]:
        """The query for rows from a cursor's value on (None: all of them), and its parameters."""
        if self.cursor is None:
            return self.query, list(self.parameters)
        from google.cloud import bigquery  # a large import, which listing and checking a project can do without

        at = bigquery.ScalarQueryParameter("cursor", self.cursor.kind, self.cursor.parameter(value))
        asked = CURSOR_PARAMETER.search(self.query) is not None
        if value is None:
            return self.query, [*self.parameters, *([at] if asked else [])]
        condition = self.newer("@cursor")
        # The line's end closes a comment.
        return f"SELECT * FROM (\n{self.query}\n) WHERE {condition}", [*self.parameters, at]

    def newer(self, value: str) -> str:
        """The condition on rows from a cursor's value on, in SQL. Without a key, nothing would tell rows of that value apart."""
        assert self.cursor is not None
        name = quoted(self.cursor.name)
        return f"({name} {'>=' if self.key else '>'} {value} OR {name} IS NULL)"


def quoted(name: str) -> str:
    """A column's name in GoogleSQL."""
    return f"`{name}`"


def find(service: Service, jobs: Jobs, pull: BigqueryPull, dataset: str) -> Source:
    """The pull's table or query. Raises ConfigurationError for names that are not there, with the nearest that is."""
    return _of_query(jobs, pull) if pull.query else _of_table(service, pull, dataset)


def _of_query(jobs: Jobs, pull: BigqueryPull) -> Source:
    query = pull.query.strip().rstrip(";").rstrip()
    parameters = client_parameters(pull.parameters)
    # The column that `@cursor` is compared with is not known yet. A null as such fits any type, a parameter has one.
    fields, where = jobs.checked(CURSOR_PARAMETER.sub("NULL", query), parameters).fields, f"the query of {pull.stream}"
    found = {item.name: item for item in fields}
    cursor = _cursor(pull, found)
    for name in pull.key or ():
        _known(name, found, where)
    return Source(jobs.where, _lake_fields(fields), tuple(found), tuple(pull.key or ()), cursor, query=query, parameters=parameters)


def _of_table(service: Service, pull: BigqueryPull, dataset: str) -> Source:
    table = table_of(service, pull.table or pull.stream, dataset)
    where = f"{table.project}.{table.dataset_id}.{table.table_id}"
    found = {item.name: item for item in table.schema}
    key = tuple(pull.key) if pull.key is not None else primary_key(table)
    wanted = [*key, *([pull.cursor] if pull.cursor else [])]
    for name in [*pull.columns, *wanted]:
        _known(name, found, where)
    chosen = set(pull.columns or found) | set(wanted)
    columns = tuple(name for name in found if name in chosen)
    path = query = ""
    if table.table_type in _READ_AS_THEY_LIE:
        path = f"projects/{table.project}/datasets/{table.dataset_id}/tables/{table.table_id}"
    names = ", ".join(map(quoted, columns))
    query = f"SELECT {names} FROM `{where}`" + (f"\nWHERE ({pull.where}\n)" if pull.where else "")
    fields = _lake_fields(table.schema)
    return Source(where, fields, columns, key, _cursor(pull, found), path=path, query=query, table=table)


def _known(name: str, found: Mapping[str, Any], where: str) -> None:
    if name not in found:
        raise ConfigurationError(f"{where} has no column {name}", do=did_you_mean(name, found))


def _cursor(pull: BigqueryPull, found: Mapping[str, Any]) -> CursorColumn | None:
    if not pull.cursor:
        return None
    if pull.cursor not in found:
        raise ConfigurationError(f"there is no column {pull.cursor} to go by", do=did_you_mean(pull.cursor, found))
    column = found[pull.cursor]
    return CursorColumn.of(column.name, column.field_type, column.mode)


def _lake_fields(fields: Sequence[Any]) -> dict[str, pa.Field]:
    return {
        item.name: lake_field(item.name, item.field_type, item.mode, (item.precision, item.scale or 0) if item.precision else None)
        for item in fields
    }


def primary_key(table: Any) -> tuple[str, ...]:
    """The columns of the table's primary key. BigQuery does not enforce it, so it is as good as what fills the table."""
    constraints = table.table_constraints
    return tuple(constraints.primary_key.columns) if constraints is not None and constraints.primary_key is not None else ()


def table_of(service: Service, name: str, dataset: str) -> Any:
    """Google's description of a table. Raises ConfigurationError for one that is not there, with the nearest name that is."""
    from google.api_core.exceptions import NotFound

    project, found_dataset, table = split_name(name, service.project, dataset)
    with in_words(f"{project}.{found_dataset}.{table}"), suppress(NotFound):
        return service.rest.get_table(f"{project}.{found_dataset}.{table}", retry=service.retry)
    tables = _names(service.rest.list_tables, f"{project}.{found_dataset}", "table_id", service)
    if tables is None:
        datasets = _names(service.rest.list_datasets, project, "dataset_id", service) or []
        raise ConfigurationError(f"there is no dataset {found_dataset} in {project}", do=did_you_mean(found_dataset, datasets))
    raise ConfigurationError(f"there is no table {table} in {project}.{found_dataset}", do=did_you_mean(table, tables))


def split_name(name: str, project: str, dataset: str) -> tuple[str, str, str]:
    """Project, dataset and table of a name that may leave out the first two. Raises ConfigurationError for one without a dataset."""
    parts = name.split(".")
    if len(parts) > 2:
        return ".".join(parts[:-2]), parts[-2], parts[-1]
    if len(parts) == 2:
        return project, parts[0], parts[1]
    if not dataset:
        raise ConfigurationError(
            f"nothing says which dataset {name} is in", do="write the pull's `table` as dataset.table, or set the source's `dataset`"
        )
    return project, dataset, name


def _names(list_them: Any, of: str, attribute: str, service: Service) -> list[str] | None:
    """Names for a hint; None where there is nothing to list or no right to."""
    try:
        with in_words(of):
            return [getattr(item, attribute) for item in list_them(of, max_results=_MOST_NAMES, retry=service.retry)]
    except MuxlyError:
        return None
