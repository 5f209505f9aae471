"""A transform reads current tables and stores what changed, however it is written."""

import datetime as dt
from decimal import Decimal
from pathlib import Path
from typing import Any

import orjson
import pyarrow as pa
import pytest

from muxly_dagster import records
from muxly_dagster.assembly import Transform
from muxly_dagster.errors import ConfigurationError, MuxlyError
from muxly_dagster.lake import Lake
from muxly_dagster.project.models import TransformSpec
from muxly_dagster.transforming import preview, transform
from muxly_dagster.transforms.cast import Cast
from muxly_dagster.transforms.dedupe import Dedupe
from muxly_dagster.transforms.filter import Filter
from muxly_dagster.transforms.flatten import Flatten
from muxly_dagster.transforms.mask import Mask
from muxly_dagster.transforms.rename import Rename
from muxly_dagster.transforms.set import Set

CONTACTS = [
    {"id": "1", "email": "ada@x.org", "stage": "lead", "props": {"age": "36", "tags": ["a"]}},
    {"id": "2", "email": "bob@x.org", "stage": "customer", "props": {"age": "41"}},
    {"id": "3", "email": "eve@x.org", "stage": "lead", "props": None},
]
CONTACTS_SCHEMA = pa.schema(
    [("id", pa.string()), ("email", pa.string()), ("stage", pa.string()), pa.field("props", pa.string(), metadata=records.JSON_FIELD)]
)
SIGNUPS = pa.table({"n": [1, 2, 3], "email": ["ada@x.org", "ada@x.org", "bob@x.org"]})


def put(lake: Lake, name: str, rows: pa.Table, key: tuple[str, ...]) -> None:
    with lake.writer(name, key=key, run_id="pull") as writer:
        writer.add(rows)
        writer.finish(whole=True)


def contacts(rows: list[dict[str, Any]]) -> pa.Table:
    return pa.Table.from_pylist(
        [row | {"props": orjson.dumps(row["props"]).decode() if row["props"] else None} for row in rows], CONTACTS_SCHEMA
    )


@pytest.fixture
def lake(tmp_path: Path) -> Lake:
    lake = Lake(str(tmp_path / "lake"))
    put(lake, "crm.contacts", contacts(CONTACTS), ("id",))
    put(lake, "app.signups", SIGNUPS, ("n",))
    return lake


def by_sql(sql: str, *inputs: str, key: tuple[str, ...] = (), **spec: Any) -> Transform:
    return Transform("out", TransformSpec(sql=sql, key=list(key), **spec), inputs, key)


def by_steps(*steps: Any, key: tuple[str, ...] = ("id",)) -> Transform:
    spec = TransformSpec.model_validate({"steps": [{step.name: None} for step in steps], "from": ["crm.contacts"], "key": list(key)})
    return Transform("out", spec, ("crm.contacts",), key, steps)


def by_python(target: str, *inputs: str, key: tuple[str, ...] = ()) -> Transform:
    return Transform("out", TransformSpec.model_validate({"python": target, "from": list(inputs), "key": list(key)}), inputs, key)


def stored(lake: Lake) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = lake.existing("out").current().to_pylist()
    return sorted(rows, key=str)


# ---- sql

CUSTOMERS = "select c.email, c.stage, count(s.n) as signups from crm.contacts c left join app.signups s using (email) group by all"


def test_a_sql_transform_stores_its_rows_and_then_only_what_changed(lake: Lake):
    customers = by_sql(CUSTOMERS, "crm.contacts", "app.signups", key=("email",))
    seen: list[tuple[str, int]] = []
    first = transform(lake, customers, run_id="r1", progress=lambda name, count: seen.append((name, count)))
    assert (first.asset, first.read, first.changed) == ("out", 3, 3)
    assert seen == [("out", 3)]
    assert stored(lake) == [
        {"email": "ada@x.org", "stage": "lead", "signups": 2},
        {"email": "bob@x.org", "stage": "customer", "signups": 1},
        {"email": "eve@x.org", "stage": "lead", "signups": 0},
    ]
    assert transform(lake, customers, run_id="r2").changed == 0

    put(lake, "crm.contacts", contacts([CONTACTS[0] | {"stage": "customer"}, CONTACTS[1]]), ("id",))
    third = transform(lake, customers, run_id="r3")
    assert (third.read, third.changed, third.metadata["upserts"], third.metadata["deletes"]) == (2, 2, 1, 1)
    assert stored(lake) == [
        {"email": "ada@x.org", "stage": "customer", "signups": 2},
        {"email": "bob@x.org", "stage": "customer", "signups": 1},
    ]


def test_without_a_key_rows_are_known_by_their_content(lake: Lake):
    stages = by_sql("select stage from crm.contacts", "crm.contacts")
    assert transform(lake, stages, run_id="r1").changed == 3
    assert transform(lake, stages, run_id="r2").changed == 0
    put(lake, "crm.contacts", contacts(CONTACTS[:2]), ("id",))
    assert transform(lake, stages, run_id="r3").metadata["deletes"] == 1
    assert stored(lake) == [{"stage": "customer"}, {"stage": "lead"}]


def test_a_transform_can_read_another_transform(lake: Lake):
    put(lake, "customers", pa.table({"email": ["x"], "n": [1]}), ("email",))
    transform(lake, by_sql("from customers", "customers"), run_id="r")
    assert stored(lake) == [{"email": "x", "n": 1}]


def test_every_type_of_sql_arrives_in_one_of_the_lakes_types(lake: Lake):
    sql = """
        select 1::tinyint as small, sum(1) as total, 1.50::decimal(6,2) as money, 'x'::enum('x') as kind, true as yes, 'ab'::blob as raw,
            date '2026-01-02' as day, timestamp '2026-01-02 03:04:05' as plain, timestamptz '2026-01-02 03:04:05+01' as zoned,
            time '10:00' as clock, interval 1 day as span, '6b1e2a9c-0a52-4d0e-9c39-0f6d7a0e8f11'::uuid as uid,
            [1, 2] as list, {'a': 1} as object, map {'k': 1} as map, '{"z": 1}'::json as doc, null as nothing,
            170141183460469231731687303715884105727::hugeint // 10 as huge
    """
    transform(lake, by_sql(sql), run_id="r")
    (row,) = stored(lake)
    assert row == {
        "small": 1,
        "total": 1,
        "money": Decimal("1.50"),
        "kind": "x",
        "yes": True,
        "raw": b"ab",
        "day": dt.date(2026, 1, 2),
        "plain": dt.datetime(2026, 1, 2, 3, 4, 5, tzinfo=dt.UTC),
        "zoned": dt.datetime(2026, 1, 2, 2, 4, 5, tzinfo=dt.UTC),
        "clock": "10:00:00",
        "span": "1 day",
        "uid": "6b1e2a9c-0a52-4d0e-9c39-0f6d7a0e8f11",
        "list": "[1,2]",
        "object": '{"a":1}',
        "map": '{"k":1}',
        "doc": '{"z": 1}',
        "huge": Decimal("17014118346046923173168730371588410572"),
    }
    schema = lake.existing("out").schema
    assert {field.name for field in schema if records.is_json(field)} == {"list", "object", "map", "doc"}
    assert schema.field("total").type == pa.int64()


def test_many_rows_are_stored_in_several_commits(lake: Lake):
    many = by_sql("select i as id, 'row ' || i as text from range(120000) t(i)", key=("id",))
    outcome = transform(lake, many, run_id="r1")
    assert (outcome.read, outcome.changed) == (120_000, 120_000)
    assert lake.existing("out").count_current() == 120_000
    assert transform(lake, many, run_id="r2").changed == 0


def test_a_key_given_twice_is_an_error_that_names_it_even_far_apart(lake: Lake):
    twice = by_sql("select if(i = 119999, 7, i) as id, i from range(120000) t(i)", key=("id",))
    with pytest.raises(MuxlyError, match=r"transform out: the key \(id\) 7 is given by more than one row\n  → group by the key"):
        transform(lake, twice, run_id="r")


def test_a_row_without_its_key_is_an_error(lake: Lake):
    with pytest.raises(MuxlyError, match="has no key: email is null"):
        transform(lake, by_sql("select null::text as email, 1 as n", key=("email",)), run_id="r")


def test_input_that_is_not_there_yet_says_what_to_run(lake: Lake):
    with pytest.raises(MuxlyError, match=r"crm.deals has no data yet\n  → run `muxly run crm.deals` first"):
        transform(lake, by_sql("select * from crm.deals", "crm.deals"), run_id="r")


@pytest.mark.parametrize(
    ("sql", "error", "said"),
    [
        ("select emial from crm.contacts", ConfigurationError, 'Referenced column "emial" not found'),
        ("select email::integer as n from crm.contacts", MuxlyError, "Could not convert string 'ada@x.org'"),
        ("select email, id as email from crm.contacts", ConfigurationError, "two columns are named email"),
        ("select 1 as _muxly_seq", ConfigurationError, "has a name of Muxly's own"),
        ("select * from read_csv('/etc/passwd')", ConfigurationError, "may read tables of the lake and nothing else"),
        ("select * from '/etc/passwd'", ConfigurationError, "does not exist"),
        ("select * from glob('/*')", ConfigurationError, "may read tables of the lake and nothing else"),
        ("copy crm.contacts to '/tmp/x.csv'", ConfigurationError, "not a SELECT"),
        ("attach '/tmp/x.db'", ConfigurationError, "not a SELECT"),
        ("install httpfs", ConfigurationError, "not a SELECT"),
        ("pragma version", ConfigurationError, "not a SELECT"),
        ("set threads = 9", ConfigurationError, "not a SELECT"),
        ("select 1; copy crm.contacts to '/tmp/x.csv'", ConfigurationError, "2 statements"),
    ],
)
def test_sql_that_cannot_run_says_why_and_stores_nothing(lake: Lake, sql: str, error: type[MuxlyError], said: str):
    with pytest.raises(error) as caught:
        transform(lake, by_sql(sql, "crm.contacts"), run_id="r")
    assert said in str(caught.value)
    assert "LINE 1" not in str(caught.value)
    assert lake.table("out") is None


def test_a_frozen_contract_holds_for_transforms_too(lake: Lake):
    transform(lake, by_sql("select 1 as id", key=("id",), contract="freeze"), run_id="r")
    with pytest.raises(MuxlyError, match="contract of out is frozen"):
        transform(lake, by_sql("select 1 as id, 2 as more", key=("id",), contract="freeze"), run_id="r")


def test_a_preview_shows_the_first_rows_and_stores_nothing(lake: Lake):
    shown = preview(lake, by_sql("select email, {'n': 1} as object from crm.contacts order by email", "crm.contacts"), 2)
    assert shown == [{"email": "ada@x.org", "object": {"n": 1}}, {"email": "bob@x.org", "object": {"n": 1}}]
    assert len(preview(lake, by_sql("select i from range(200000) t(i)"), 5)) == 5
    assert lake.table("out") is None


# ---- steps


def test_steps_run_one_after_the_other(lake: Lake):
    outcome = transform(
        lake,
        by_steps(
            Flatten.parse({"props": {"age": "integer"}}),
            Filter.parse("age is not null"),
            Set.parse({"next": "age + 1"}),
            Rename.parse({"stage": "lifecycle"}),
            Cast.parse({"next": "string"}),
            Mask.parse({"email": "last4"}),
            Dedupe.parse(["id"]),
        ),
        run_id="r",
    )
    assert outcome.changed == 2
    assert stored(lake) == [
        {"id": "1", "email": "***.org", "lifecycle": "lead", "age": 36, "next": "37"},
        {"id": "2", "email": "***.org", "lifecycle": "customer", "age": 41, "next": "42"},
    ]


def test_nested_values_are_still_json_behind_the_steps(lake: Lake):
    transform(lake, by_steps(Filter.parse("id = '1'"), Rename.parse({"props": "properties"})), run_id="r")
    assert stored(lake)[0]["properties"] == '{"age":"36","tags":["a"]}'
    assert records.is_json(lake.existing("out").schema.field("properties"))


def test_a_step_sees_what_the_one_before_left_and_an_error_names_the_step(lake: Lake):
    with pytest.raises(ConfigurationError, match=r"transforms.out.steps.2 \(filter\): there is no column stage; did you mean"):
        transform(lake, by_steps(Rename.parse({"stage": "stages"}), Filter.parse("stage = 'lead'")), run_id="r")
    with pytest.raises(ConfigurationError, match=r"transforms.out.steps.1 \(set\): the SQL cannot run: .*nosuch does not exist"):
        transform(lake, by_steps(Set.parse({"x": "nosuch(id)"})), run_id="r")


def test_a_salt_is_in_no_error(lake: Lake):
    masked = by_steps(Mask.parse({"columns": {"email": "hash"}, "salt": "hunter2"}), Set.parse({"x": "email + 1"}))
    with pytest.raises(ConfigurationError) as caught:
        transform(lake, masked, run_id="r")
    assert caught.value.__cause__ is None
    assert "hunter2" not in str(caught.value)


@pytest.mark.parametrize("expression", ["getenv('HOME')", "read_text('/etc/passwd')", "(select content from read_text('/etc/passwd'))"])
def test_steps_cannot_leave_the_sandbox_either(lake: Lake, expression: str):
    with pytest.raises((ConfigurationError, ValueError)):
        transform(lake, by_steps(Set.parse({"x": expression})), run_id="r")
    assert lake.table("out") is None


# ---- python

MODULE = """
from __future__ import annotations

import duckdb
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from colours import colour


def plain(contacts):
    return contacts.filter(pc.equal(contacts["stage"], "lead")).select(["id", "props"])


def frames(contacts: pd.DataFrame, signups: pd.DataFrame) -> pd.DataFrame:
    joined = contacts.merge(signups, on="email", how="left")
    return joined.groupby("id", as_index=False).agg(signups=("n", "count"), colour=("stage", lambda s: colour(s.iloc[0])))


def relations(app_signups: duckdb.DuckDBPyRelation, contacts: duckdb.DuckDBPyRelation) -> duckdb.DuckDBPyRelation:
    return contacts.set_alias("c").join(app_signups.set_alias("s"), "c.email = s.email").aggregate("c.id, count(*) as signups")


def in_order(a: pa.Table, b: pa.Table) -> pa.Table:
    return pa.table({"a": [len(a)], "b": [len(b)]})


def broken(contacts):
    rows = contacts.to_pylist()
    return rows[0]["no_such_column"]


def wrong(contacts):
    return contacts.to_pylist()


def mixed(contacts: pd.DataFrame):
    return pd.DataFrame({"x": [1, "a", {}]})


def asks_too_much(contacts: list):
    return contacts


def late(contacts: duckdb.DuckDBPyRelation):
    return contacts.project("cast(email as integer) as n")
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "project"
    folder.mkdir()
    (folder / "shapes.py").write_text(MODULE)
    (folder / "colours.py").write_text("def colour(stage):\n    return {'lead': 'blue'}.get(stage, 'green')\n")
    return folder


def test_a_function_without_annotations_gets_pyarrow_and_nested_values_stay_json(lake: Lake, folder: Path):
    assert transform(lake, by_python("shapes:plain", "crm.contacts", key=("id",)), run_id="r", project_folder=folder).changed == 2
    assert [row["id"] for row in stored(lake)] == ["1", "3"]
    assert records.is_json(lake.existing("out").schema.field("props"))


def test_a_function_annotated_with_pandas_gets_and_gives_frames(lake: Lake, folder: Path):
    transform(lake, by_python("shapes:frames", "crm.contacts", "app.signups", key=("id",)), run_id="r", project_folder=folder)
    assert stored(lake) == [
        {"id": "1", "signups": 2, "colour": "blue"},
        {"id": "2", "signups": 1, "colour": "green"},
        {"id": "3", "signups": 0, "colour": "blue"},
    ]


def test_a_function_annotated_with_duckdb_gets_and_gives_relations_by_the_names_of_its_parameters(lake: Lake, folder: Path):
    python = by_python("shapes:relations", "crm.contacts", "app.signups", key=("id",))
    transform(lake, python, run_id="r", project_folder=folder)
    assert stored(lake) == [{"id": "1", "signups": 2}, {"id": "2", "signups": 1}]
    assert transform(lake, python, run_id="r2", project_folder=folder).changed == 0


def test_parameters_of_other_names_get_the_tables_in_order(lake: Lake, folder: Path):
    assert preview(lake, by_python("shapes:in_order", "crm.contacts", "app.signups"), 5, project_folder=folder) == [{"a": 3, "b": 3}]


@pytest.mark.parametrize(
    ("target", "error", "said"),
    [
        ("shapes:broken", MuxlyError, ["transform out, shapes.py line 31: shapes:broken failed: KeyError: 'no_such_column'"]),
        ("shapes:late", MuxlyError, ["transform out: the SQL failed on the data: Could not convert string 'ada@x.org'"]),
        ("shapes:mixed", MuxlyError, ["shapes:mixed gives a column of mixed types", "astype"]),
        ("shapes:wrong", ConfigurationError, ["shapes:wrong returns builtins.list", "return a pyarrow.Table"]),
        ("shapes:asks_too_much", ConfigurationError, ["wants crm.contacts as list"]),
        ("shapes:in_order", ConfigurationError, ["shapes:in_order(a, b) does not take the tables crm.contacts"]),
        ("shapes:nothing", ConfigurationError, ["the module shapes has no function nothing"]),
        ("nowhere:plain", ConfigurationError, ["there is no Python module nowhere", "put nowhere.py into"]),
        ("halves:plain", MuxlyError, ["halves.py line 2", "SyntaxError"]),
        ("needy:plain", MuxlyError, ["needy.py line 1", "No module named 'not_installed'"]),
    ],
)
def test_a_mistake_in_a_function_names_its_place_and_stores_nothing(
    lake: Lake, folder: Path, target: str, error: type[MuxlyError], said: list[str]
):
    (folder / "halves.py").write_text("def plain(contacts):\n    return (\n")
    (folder / "needy.py").write_text("import not_installed\n\ndef plain(contacts): ...\n")
    with pytest.raises(error) as caught:
        transform(lake, by_python(target, "crm.contacts"), run_id="r", project_folder=folder)
    for text in said:
        assert text in str(caught.value)
    assert lake.table("out") is None


def test_projects_with_modules_of_one_name_do_not_meet(lake: Lake, tmp_path: Path):
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "same.py").write_text(
            f"import pyarrow as pa\n\ndef f(contacts):\n    return pa.table({{'project': ['{name}']}})\n"
        )
        assert preview(lake, by_python("same:f", "crm.contacts"), 1, project_folder=tmp_path / name) == [{"project": name}]
