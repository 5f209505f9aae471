"""The datasets and tables of the BigQuery stand-in, as its REST API describes, makes and changes them."""

import datetime as dt
import uuid
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa

from muxly_dagster_tests.peers import bigquery_sql as sql
from muxly_dagster_tests.peers import bigquery_writes as writes
from muxly_dagster_tests.peers.bigquery_sql import Refused, Relation

PROJECT = "lab"


@dataclass
class Tables:
    """Tables by `dataset.table`."""

    tables: dict[str, Relation] = field(default_factory=dict)
    location: str = "EU"
    """Where it is. In a single region, a job is found by who says the region too."""
    datasets: set[str] = field(default_factory=set)
    """Datasets that are there without a table."""

    def put(self, name: str, rows: pa.Table, **facts: Any) -> Relation:
        """A table's rows from now on; what was before can still be read as of its time."""
        relation = self.tables.setdefault(name, Relation())
        relation.versions.append((dt.datetime.now(dt.UTC), rows))
        for fact, value in facts.items():
            setattr(relation, fact, value)
        return relation

    def relation(self, dataset: str, table: str) -> Relation:
        """A table. Raises as Google answers for one that is not there."""
        if f"{dataset}.{table}" not in self.tables:
            raise Refused(404, "notFound", f"Not found: Table {PROJECT}:{dataset}.{table} was not found in location EU")
        return self.tables[f"{dataset}.{table}"]

    def listed(self, project: str, dataset: str) -> dict[str, Any]:
        """Tables of a dataset, as tables.list answers."""
        names = [name.partition(".")[2] for name in self.tables if name.startswith(f"{dataset}.")]
        if not names:
            raise Refused(404, "notFound", f"Not found: Dataset {project}:{dataset}")
        listed = [
            {
                "kind": "bigquery#table",
                "id": f"{project}:{dataset}.{name}",
                "tableReference": reference(project, dataset, name),
                "type": self.tables[f"{dataset}.{name}"].kind,
            }
            for name in sorted(names)
        ]
        return {"kind": "bigquery#tableList", "tables": listed, "totalItems": len(listed)}

    def described(self, project: str, dataset: str, table: str) -> dict[str, Any]:
        """A table, as tables.get answers."""
        relation = self.relation(dataset, table)
        rows = sql.current(self.tables, relation)
        described: dict[str, Any] = {
            "kind": "bigquery#table",
            "etag": f"{len(relation.versions)}-{len(relation.fields)}",
            "id": f"{project}:{dataset}.{table}",
            "tableReference": reference(project, dataset, table),
            "type": relation.kind,
            "schema": {"fields": relation.fields or sql.rest_fields(rows)},
            **relation.partitioning,
            **relation.facts,
        }
        if relation.view:
            described["view"] = {"query": relation.view, "useLegacySql": False}
        if relation.key:
            described["tableConstraints"] = {"primaryKey": {"columns": list(relation.key)}}
        return described

    def has(self, project: str, dataset: str) -> None:
        """Raises as Google answers for a dataset that is not there."""
        if dataset not in self.datasets | {name.partition(".")[0] for name in self.tables}:
            raise Refused(404, "notFound", f"Not found: Dataset {project}:{dataset} was not found in location {self.location}")

    def made(self, project: str, dataset: str, sent: dict[str, Any]) -> dict[str, Any]:
        """A new table, as tables.insert makes it."""
        self.has(project, dataset)
        table = sent["tableReference"]["tableId"]
        if f"{dataset}.{table}" in self.tables:
            raise Refused(409, "duplicate", f"Already Exists: Table {project}:{dataset}.{table}")
        fields = sent["schema"]["fields"]
        relation = self.put(f"{dataset}.{table}", writes.schema(fields).empty_table(), fields=fields)
        relation.key = sent.get("tableConstraints", {}).get("primaryKey", {}).get("columns", ())
        relation.partitioning = {name: sent[name] for name in ("timePartitioning", "clustering") if name in sent}
        kept = ("description", "labels", "expirationTime")
        relation.facts = {name: sent[name] for name in kept if name in sent} | {"creationTime": str(uuid.uuid4().int >> 90)}
        return self.described(project, dataset, table)

    def patched(self, project: str, dataset: str, table: str, sent: dict[str, Any], etag: str) -> dict[str, Any]:
        """A table with another schema, as tables.patch makes it; with an etag, only if nobody has changed it since."""
        relation = self.relation(dataset, table)
        if etag and etag != self.described(project, dataset, table)["etag"]:
            raise Refused(412, "conditionNotMet", "Precondition check failed.")
        relation.fields = sent["schema"]["fields"]
        rows, wanted = relation.at(None), writes.schema(relation.fields)
        lost = [name for name in rows.column_names if name not in wanted.names]
        if lost:
            raise Refused(400, "invalid", f"Provided Schema does not match Table. Field {lost[0]} is missing in new schema")
        columns = [rows[f.name] if f.name in rows.column_names else pa.nulls(len(rows), f.type) for f in wanted]
        self.put(f"{dataset}.{table}", pa.table(columns, schema=wanted))
        return self.described(project, dataset, table)


def reference(project: str, dataset: str, table: str = "") -> dict[str, str]:
    """The name of a dataset or table."""
    reference = {"projectId": project, "datasetId": dataset}
    return reference | {"tableId": table} if table else reference
