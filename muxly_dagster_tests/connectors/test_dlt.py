"""Sources written for dlt: the connectors' promises kept by dlt itself, its state in Muxly's cursor, its types in the lake."""

import datetime as dt
import decimal
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from muxly_dagster import records
from muxly_dagster.connectors import dlt
from muxly_dagster.connectors.dlt import Dlt
from muxly_dagster.errors import ConfigurationError, SourceError
from muxly_dagster.testing import ConnectorContract
from muxly_dagster.testing.connectors import Pulled
from muxly_dagster_tests.peers.tickets import DLT, HOW, DltDesk

needs_dlt = pytest.mark.skipif(not DLT.exists(), reason=f"dlt is not there: {HOW}")


@needs_dlt
class TestReplacing(ConnectorContract):
    @pytest.fixture
    def provider(self, tmp_path: Path) -> Iterator[DltDesk]:
        with DltDesk(tmp_path) as desk:
            yield desk


def connector(folder: Path, code: str = "", attribute: str = "things", **fields: Any) -> Dlt:
    (folder / "shop.py").write_text(f"import datetime as dt, decimal\nimport dlt\n{code}", "utf-8")
    return Dlt.model_validate({"source": f"{folder}/shop:{attribute}", "python": str(DLT)} | fields)


def rows(source: Dlt, stream: str = "things", after: Any = None) -> tuple[list[dict[str, Any]], Any]:
    """All rows, and the last cursor."""
    batches = list(source.pull(source.Pull(stream=stream), after, None))
    return [row for batch in batches for row in batch.rows.to_pylist()], batches[-1].cursor if batches else None


@needs_dlt
def test_an_incremental_resource_goes_on_from_its_state_in_muxlys_cursor(tmp_path: Path) -> None:
    with DltDesk(tmp_path, "merge") as desk:
        desk.put(1, 2, 3, 4, text="first")
        pulled = Pulled(desk, tmp_path)
        assert pulled.run().changed == 4
        desk.put(2, 5, text="second")
        asked = len(desk.asked)
        assert pulled.run().changed == 2
        assert {dict(each.query).get("since") for each in desk.asked[asked:]} == {"2026-03-01T00:00:04Z"}
        assert pulled.texts() == {1: "first", 2: "second", 3: "first", 4: "first", 5: "second"}


@needs_dlt
def test_state_that_a_source_keeps_for_itself_is_kept_too(tmp_path: Path) -> None:
    code = """
@dlt.resource
def things():
    state = dlt.current.resource_state()
    state["runs"] = state.get("runs", 0) + 1
    yield {"run": state["runs"]}
"""
    source = connector(tmp_path, code)
    first, cursor = rows(source)
    second, _ = rows(source, after=cursor)
    assert (first, second) == ([{"run": 1}], [{"run": 2}])


@needs_dlt
def test_key_sync_and_types_are_those_that_the_resource_says(tmp_path: Path) -> None:
    code = """
@dlt.source
def shop(rate: int = 1):
    @dlt.resource(primary_key=("a", "b"), write_disposition="merge", columns={"sum": {"data_type": "decimal"}})
    def orders(): yield []
    @dlt.resource(write_disposition="replace")
    def stock(): yield []
    @dlt.resource
    def clicks(): yield []
    return orders, stock, clicks
"""
    source = connector(tmp_path, code, "shop", arguments={"rate": 2})
    found = {stream.name: stream for stream in source.streams()}
    assert [(s.name, s.key, s.sync) for s in found.values()] == [
        ("orders", ("a", "b"), "cursor"),
        ("stock", (), "full"),
        ("clicks", (), "cursor"),
    ]
    assert found["orders"].schema is not None
    assert str(found["orders"].schema.field("sum").type).startswith("decimal128")
    with pytest.raises(ConfigurationError, match="did you mean orders"):
        source.resolve(source.Pull(stream="ordres"))


@needs_dlt
def test_values_of_python_types_arrive_as_they_are(tmp_path: Path) -> None:
    code = """
@dlt.resource(write_disposition="replace")
def things():
    utc = dt.timezone.utc
    yield [{"at": dt.datetime(2026, 3, 1, tzinfo=utc), "day": dt.date(2026, 3, 1), "sum": decimal.Decimal("12345678901234567.89")}]
    nested = {"x": [1, decimal.Decimal("1.5")]}
    yield {"sum": decimal.Decimal("0.10"), "late": dt.datetime(2026, 1, 1), "in": nested, "no": float("nan")}
"""
    found, _ = rows(connector(tmp_path, code))
    assert found[0]["at"] == dt.datetime(2026, 3, 1, tzinfo=dt.UTC)
    assert found[0]["day"] == dt.date(2026, 3, 1)
    assert [row["sum"] for row in found] == [decimal.Decimal("12345678901234567.89"), decimal.Decimal("0.10")]
    assert (found[-1]["in"], found[-1].get("no"), found[-1]["late"]) == ('{"x":[1,1.5]}', None, dt.datetime(2026, 1, 1, tzinfo=dt.UTC))


@needs_dlt
def test_an_arrow_table_arrives_with_its_types(tmp_path: Path) -> None:
    code = """
import pyarrow as pa
@dlt.resource(write_disposition="replace")
def things():
    yield pa.table({"n": [1, 2], "at": pa.array([0, 1], pa.timestamp("us", "UTC"))})
"""
    source = connector(tmp_path, code)
    [batch] = [b for b in source.pull(source.Pull(stream="things"), None, None) if len(b.rows)]
    assert batch.rows.schema.field("at").type == records.TIMESTAMP
    assert batch.rows["n"].to_pylist() == [1, 2]


@needs_dlt
def test_a_source_that_fails_is_told_by_its_own_error_without_secrets(tmp_path: Path) -> None:
    code = """
@dlt.resource
def things(token: str = dlt.secrets.value):
    yield 1
    raise KeyError(f"no shop for {token}")
"""
    with pytest.raises(SourceError) as caught:
        rows(connector(tmp_path, code, secrets={"token": "t0ken-of-mine"}))
    assert "KeyError: 'no shop for ***'" in str(caught.value)


@needs_dlt
def test_what_dlt_resolves_by_itself_lies_beside_the_module(tmp_path: Path) -> None:
    (tmp_path / ".dlt").mkdir()
    (tmp_path / ".dlt" / "secrets.toml").write_text('[sources]\napi_key = "from the file"\n', "utf-8")
    code = "@dlt.resource(write_disposition='replace')\ndef things(api_key: str = dlt.secrets.value):\n    yield {'key': api_key}\n"
    assert rows(connector(tmp_path, code))[0] == [{"key": "from the file"}]


@needs_dlt
@pytest.mark.parametrize(
    ("code", "attribute", "what"),
    [
        ("", "things", "cannot be imported"),
        ("import nothing_of_that_name", "things", "nothing_of_that_name"),
        ("things = 7", "things", "no dlt source"),
        ("def things(): return 7", "things", "no dlt source"),
        ("@dlt.source\ndef things(a): return []", "things", "does not take these arguments|Missing|a"),
    ],
)
def test_what_is_no_source(tmp_path: Path, code: str, attribute: str, what: str) -> None:
    with pytest.raises(ConfigurationError, match=what):
        connector(tmp_path, code, attribute, arguments={"b": 1} if "def things(a)" in code else {}).streams()


@needs_dlt
def test_a_missing_secret_is_told_by_its_name(tmp_path: Path) -> None:
    source = connector(tmp_path, "@dlt.source\ndef things(api_key: str = dlt.secrets.value): return []")
    with pytest.raises(ConfigurationError, match="api_key"):
        source.streams()


def test_without_dlt_it_is_said_how_to_get_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dlt.child, "has_module", lambda name: False)
    result = connector(tmp_path, python="").test_connection()
    assert result.status == "failed"
    assert "muxly-dagster[dlt]" in result.what + result.do


def test_an_interpreter_without_dlt(tmp_path: Path) -> None:
    if dlt.child.has_module("dlt"):
        pytest.skip("this interpreter has it")
    result = connector(tmp_path, python=sys.executable).test_connection()
    assert "install dlt there" in result.what + result.do


def test_a_source_is_named_by_module_and_attribute() -> None:
    with pytest.raises(ValueError, match="source"):
        Dlt(source="shop.py")


def test_secrets_are_seen_nowhere(tmp_path: Path) -> None:
    source = connector(tmp_path, secrets={"api_key": "t0ken-of-mine"})
    assert "t0ken" not in repr(source) + str(source.model_dump(mode="json"))
