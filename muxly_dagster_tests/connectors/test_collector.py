"""The collector connector: what waits comes into the lake once and exactly, and the inbox empties behind it and nowhere before."""

import datetime as dt
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import orjson
import pyarrow as pa
import pytest

from muxly_dagster import records
from muxly_dagster.connector import Batch, Connector, Cursor
from muxly_dagster.connectors.collector import Collector, CollectorPull, reading
from muxly_dagster.errors import RetryLater, SourceError
from muxly_dagster.intake import OwnInbox, Parcel
from muxly_dagster.lake import Lake
from muxly_dagster.services import Services
from muxly_dagster.state import State
from muxly_dagster.testing.connectors import ConnectorContract, Pulled
from muxly_dagster_tests.connectors.posted import Fragile, Posted

NOON = dt.datetime(2026, 5, 1, 12, tzinfo=dt.UTC)
PULL = CollectorPull(stream="signups")


def collector(inbox: OwnInbox) -> Collector:
    return Collector.model_validate({}).equipped(Services(inbox=inbox, source="app"))


def parcel(seq: int, *events: str | dict[str, Any], at: dt.datetime = NOON, refused: Sequence[tuple[str, str]] = ()) -> Parcel:
    lines = [event.encode() if isinstance(event, str) else orjson.dumps(event) for event in events]
    return Parcel(seq, at, tuple(f"{seq}-{n}" for n in range(len(lines))), b"\n".join(lines), tuple(refused))


def inbox_of(*parcels: Parcel) -> OwnInbox:
    return OwnInbox({("app", "signups"): list(parcels)})


def batches(inbox: OwnInbox, cursor: Cursor | None = None, known: pa.Schema | None = None) -> list[Batch]:
    return list(collector(inbox).pull(PULL, cursor, known))


def ids(found: Sequence[Batch]) -> list[str]:
    return [text for batch in found if len(batch.rows) for text in batch.rows["_id"].to_pylist()]


def seqs(inbox: OwnInbox) -> list[int]:
    return [parcel.seq for parcel in inbox.parcels("app", "signups", 0, 1 << 30)]


# ---- events and columns ----------------------------------------------------------------------------------------------


def test_an_event_has_its_fields_its_id_and_the_time_it_was_taken() -> None:
    [batch] = batches(inbox_of(parcel(7, '{"n": 9007199254740993, "price": 1.10, "tags": ["a"], "ok": true}')))
    [row] = batch.rows.to_pylist()
    assert row == {"_id": "7-0", "_received_at": NOON, "n": 9007199254740993, "price": 1.10, "tags": '["a"]', "ok": True}
    assert records.is_json(batch.rows.schema.field("tags"))
    assert list(batch.rows.column_names)[:2] == ["_id", "_received_at"]


def test_small_parcels_are_read_together_each_event_with_its_own_id_and_time() -> None:
    parcels = [parcel(seq, *({"n": seq * 10 + n} for n in range(seq % 3 + 1)), at=NOON + dt.timedelta(seconds=seq)) for seq in range(1, 40)]
    [batch] = batches(inbox_of(*parcels))
    expected = [
        (id_, each.received_at, orjson.loads(line)["n"])
        for each in parcels
        for id_, line in zip(each.ids, each.body.split(b"\n"), strict=True)
    ]
    assert [tuple(row.values()) for row in batch.rows.to_pylist()] == expected
    assert reading.Position.of(batch.cursor) == reading.Position(39, NOON + dt.timedelta(seconds=39))


def test_events_without_any_value_are_events() -> None:
    [alone] = batches(inbox_of(parcel(1, "{}", '{"a": null}')))
    assert [list(row.values())[:2] for row in alone.rows.to_pylist()] == [["1-0", NOON], ["1-1", NOON]] and not alone.unreadable
    [beside] = batches(inbox_of(parcel(1, "{}", {"n": 1}), parcel(2, "{}")))
    assert [(row["_id"], row["n"]) for row in beside.rows.to_pylist()] == [("1-0", None), ("1-1", 1), ("2-0", None)]


def test_fields_that_are_called_like_ours_keep_their_values() -> None:
    event = {"_id": "mine", "_received_at": "then", "_own_id": 3, "id": 4}
    [batch] = batches(inbox_of(parcel(1, event)))
    own = {"_own_id": "mine", "_own_received_at": "then", "_own_own_id": 3, "id": 4}
    assert batch.rows.to_pylist() == [{"_id": "1-0", "_received_at": NOON, **own}]
    [later] = batches(inbox_of(parcel(2, {"_id": 5})), known=batch.rows.schema)
    assert later.rows["_own_id"].to_pylist() == ["5"], "it is read into the type that its column has in the lake"


def test_what_cannot_be_read_is_set_aside_and_takes_nobody_else_with_it() -> None:
    deep = '{"n": ' + "[" * 5000 + "]" * 5000 + "}"
    bad = ["{", "[1]", '{"n": NaN}', '{"n": 1}, {"n": 2}', "7", "", deep]
    events = [event for number, each in enumerate(bad) for event in (f'{{"n": {number}}}', each)]
    [batch] = batches(inbox_of(parcel(1, *events), parcel(2, {"n": 99}, at=NOON + dt.timedelta(seconds=9))))
    assert [(row["_id"], row["n"]) for row in batch.rows.to_pylist()] == [*((f"1-{2 * n}", n) for n in range(len(bad))), ("2-0", 99)]
    assert batch.rows["_received_at"].to_pylist()[-2:] == [NOON, NOON + dt.timedelta(seconds=9)]
    assert [each.text for each in batch.unreadable] == bad and all(each.reason for each in batch.unreadable)


def test_an_event_that_is_no_text_is_set_aside() -> None:
    damaged = Parcel(1, NOON, ("a", "b"), b'{"n": "\xff"}\n{"n": "fine"}')
    [batch] = batches(inbox_of(damaged))
    assert ids([batch]) == ["b"] and [each.text for each in batch.unreadable] == ['{"n": "\N{REPLACEMENT CHARACTER}"}']


def test_what_a_schema_refused_goes_to_quarantine() -> None:
    [batch] = batches(
        inbox_of(parcel(1, refused=[('{"n": "x"}', "n is no number")]), parcel(2, {"n": 1}, refused=[("{}", "n is missing")]))
    )
    assert [(each.text, each.reason) for each in batch.unreadable] == [('{"n": "x"}', "n is no number"), ("{}", "n is missing")]
    assert ids([batch]) == ["2-0"] and reading.Position.of(batch.cursor).seq == 2


def test_a_parcel_that_lost_ids_is_an_error_and_stays() -> None:
    inbox = inbox_of(Parcel(1, NOON, ("a",), b'{"n": 1}\n{"n": 2}'))
    with pytest.raises(SourceError, match="parcel 1 of the inbox is damaged"):
        batches(inbox)
    assert seqs(inbox) == [1]


# ---- how far it has come ---------------------------------------------------------------------------------------------


def test_a_large_parcel_comes_in_pieces_and_its_cursor_with_the_last(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reading, "_PAGE", 50)
    events = [{"n": n} for n in range(30)]
    found = batches(inbox_of(parcel(1, {"n": -1}), parcel(2, *events), parcel(3, {"n": 30})))
    assert [row["n"] for batch in found for row in batch.rows.to_pylist()] == list(range(-1, 31))
    places = [batch.cursor and batch.cursor["seq"] for batch in found]
    assert places.count(None) > 2, "in the middle of a parcel there is no place to go on from"
    assert [place for place in places if place] == [1, 3]


def test_one_event_may_be_larger_than_a_page(monkeypatch: pytest.MonkeyPatch) -> None:
    long = "x" * (5 << 20)
    found = batches(inbox_of(parcel(1, {"n": 1}, {"text": long}, {"n": 2})))
    assert [(row.get("n"), len(row.get("text") or "")) for batch in found for row in batch.rows.to_pylist()] == [
        (1, 0),
        (None, len(long)),
        (2, 0),
    ]


def test_a_pull_reads_to_the_end_and_does_not_wait_for_more(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where something comes in all the time, a pull that went on for as long as there is something would never end."""
    monkeypatch.setattr(reading, "_PAGE", 20)
    inbox = inbox_of(*(parcel(seq, {"n": seq}) for seq in range(1, 6)))
    found = []
    for batch in collector(inbox).pull(PULL, None, None):
        found.append(batch)
        inbox.put("app", "signups", [b'{"n": 0}'])
        assert len(found) < 20, "it never ends"
    assert len(ids(found)) >= 5


def test_a_pull_that_is_overtaken_leaves_the_rest_to_the_next_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reading, "_PAGE", 1)
    monkeypatch.setattr(reading, "_LONGEST", 0.0)
    inbox = inbox_of(*(parcel(seq, {"n": seq}) for seq in range(1, 6)))
    first = batches(inbox)
    assert ids(first) == ["1-0"], "however little time there is, something is read"
    assert ids(batches(inbox, first[-1].cursor)) == ["2-0"]


def test_the_inbox_lets_go_of_what_is_stored_and_of_nothing_else() -> None:
    inbox = inbox_of(parcel(1, {"n": 1}), parcel(2, {"n": 2}))
    found = collector(inbox)
    [batch] = found.pull(PULL, None, None)
    assert seqs(inbox) == [1, 2], "read is not stored"
    inbox.put("app", "signups", [b'{"n": 3}'])
    found.stored(PULL, batch.cursor)
    assert seqs(inbox) == [3]


def test_what_a_killed_run_had_stored_is_passed_over_and_let_go_of() -> None:
    inbox = inbox_of(parcel(1, {"n": 1}), parcel(2, {"n": 2}))
    cursor = batches(inbox)[-1].cursor
    assert batches(inbox, cursor) == [] and seqs(inbox) == []


def test_a_killed_run_and_new_events_in_one_look() -> None:
    inbox = inbox_of(parcel(1, {"n": 1}))
    cursor = batches(inbox)[-1].cursor
    inbox.kept["app", "signups"].append(parcel(2, {"n": 2}, at=NOON + dt.timedelta(seconds=1)))
    found = batches(inbox, cursor)
    assert ids(found) == ["2-0"]
    collector(inbox).stored(PULL, found[-1].cursor)
    assert seqs(inbox) == []


@pytest.mark.parametrize("minutes", [-5, 0, 5], ids=["the clock went back", "the same moment", "later"])
def test_events_behind_the_cursor_are_read_whatever_their_clock_says(minutes: int) -> None:
    inbox = inbox_of(parcel(1, {"n": 1}))
    cursor = batches(inbox)[-1].cursor
    inbox.kept["app", "signups"] = [parcel(2, {"n": 2}, at=NOON + dt.timedelta(minutes=minutes))]
    assert ids(batches(inbox, cursor)) == ["2-0"]


def test_an_inbox_made_anew_loses_nothing() -> None:
    """Its numbers begin at 1 again, behind a cursor that is far ahead."""
    cursor = batches(inbox_of(parcel(1000, {"n": 1})))[-1].cursor
    made_anew = inbox_of(parcel(1, {"n": 2}, at=NOON + dt.timedelta(hours=1)), parcel(2, {"n": 3}, at=NOON + dt.timedelta(hours=2)))
    found = batches(made_anew, cursor)
    assert ids(found) == ["1-0", "2-0"]
    made_anew.kept["app", "signups"].append(parcel(3, {"n": 4}, at=NOON + dt.timedelta(hours=3)))
    assert ids(batches(made_anew, found[-1].cursor)) == ["3-0"], "the cursor counts in the new numbers"


def test_an_older_copy_of_the_inbox_repeats_nothing_and_loses_nothing() -> None:
    stored = [parcel(seq, {"n": seq}, at=NOON + dt.timedelta(seconds=seq)) for seq in range(1, 11)]
    cursor = batches(inbox_of(*stored))[-1].cursor
    copy = inbox_of(*stored[3:6], *(parcel(seq, {"n": seq}, at=NOON + dt.timedelta(hours=seq)) for seq in (7, 8)))
    found = batches(copy, cursor)
    assert ids(found) == ["7-0", "8-0"], "what has the numbers of stored events, and came later, is news"
    collector(copy).stored(PULL, found[-1].cursor)
    assert seqs(copy) == []


def test_nothing_is_let_go_of_over_the_head_of_what_is_still_to_be_stored(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reading, "_PAGE", 1)
    cursor = reading.Position(10, NOON).cursor
    mixed = inbox_of(parcel(1, {"n": 1}), parcel(2, {"n": 2}, at=NOON + dt.timedelta(hours=1)), parcel(3, {"n": 3}), parcel(4, {"n": 4}))
    found = batches(mixed, cursor)
    assert ids(found) == ["2-0"] and seqs(mixed) == [2, 3, 4]


# ---- what it says ----------------------------------------------------------------------------------------------------


def test_a_check_says_how_many_events_wait_and_a_preview_leaves_them() -> None:
    inbox = inbox_of(parcel(1, {"n": 1}, {"n": 2}, refused=[("{", "broken")]))
    inbox.put("other", "signups", [b"{}"])
    found = collector(inbox)
    assert found.test_connection().what == "3 events wait (signups 3)"
    assert [stream.name for stream in found.streams()] == ["signups"]
    assert found.preview_notes(PULL) == ("3 events wait; what is in the lake already is not shown",)
    assert seqs(inbox) == [1]


def test_a_closed_contract_begins_with_the_columns_of_the_first_events() -> None:
    found = collector(OwnInbox())
    assert found.stream(PULL).schema == reading.COLUMNS
    assert found.stream(PULL.model_copy(update={"contract": "freeze"})).schema is None


# ---- the promises of every connector ---------------------------------------------------------------------------------


class FragileInbox(Fragile, OwnInbox):
    """An inbox that fails after so many looks."""

    def parcels(self, source: str, stream: str, after: int, limit: int) -> Sequence[Parcel]:
        self.look()
        return super().parcels(source, stream, after, limit)


class Poster(Posted):
    """A Provider: a service that posts."""

    pull: Mapping[str, Any] = {"stream": "things", "key": ["number"]}

    def __init__(self) -> None:
        self.inbox = FragileInbox()
        super().__init__(self.inbox)

    def connector(self, *, wrong: bool = False) -> Connector:
        return Collector.model_validate({}).equipped(Services(inbox=self.inbox, source="source"))

    def put(self, *numbers: int, text: str = "") -> None:
        for number in numbers:
            self.inbox.put("source", "things", [self.record(number, text)])


class TestCollector(ConnectorContract):
    """By key; an inbox signs nobody in."""

    speaks_http = signs_in = hears_deletes = False

    @pytest.fixture
    def provider(self, monkeypatch: pytest.MonkeyPatch) -> Poster:
        monkeypatch.setattr(reading, "_PAGE", 40)
        return Poster()

    def test_the_stream_is_discovered(self, provider: Poster) -> None:
        """Once something waits in it."""
        provider.put(1)
        super().test_the_stream_is_discovered(provider)


@pytest.fixture
def appended(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[tuple[Poster, Pulled]]:
    """A stream without a key."""
    monkeypatch.setattr(reading, "_PAGE", 40)
    poster = Poster()
    poster.pull = {"stream": "things"}
    yield poster, Pulled(poster, tmp_path)


def test_without_a_key_equal_events_are_events_of_their_own(appended: tuple[Poster, Pulled]) -> None:
    poster, pulled = appended
    poster.put(1, 1, 1, text="same")
    assert pulled.run().changed == 3
    poster.put(1, text="same")
    assert pulled.run().changed == 1 and pulled.run().changed == 0
    assert pulled.ops() == ["append"] * 4
    assert poster.inbox.waiting("source") == {}


def test_from_the_start_reads_what_waits_and_doubles_nothing(appended: tuple[Poster, Pulled]) -> None:
    poster, pulled = appended
    poster.put(1, 2)
    pulled.run()
    poster.put(3)
    assert pulled.run(from_start=True).changed == 1
    assert sorted(pulled.rows()) == [1, 2, 3]
    assert pulled.run().changed == 0


def test_a_pull_that_fails_half_way_has_stored_and_let_go_of_what_it_read(appended: tuple[Poster, Pulled]) -> None:
    poster, pulled = appended
    poster.put(*range(1, 9))
    poster.break_after(2)
    with pytest.raises(RetryLater):
        pulled.run()
    there = sorted(pulled.rows())
    assert there and poster.inbox.waiting("source") == {"things": 8 - len(there)}
    poster.mend()
    pulled.run()
    assert sorted(pulled.rows()) == list(range(1, 9)) and len(pulled.ops()) == 8


def test_refused_and_unreadable_events_are_dead_letters_once(appended: tuple[Poster, Pulled]) -> None:
    poster, pulled = appended
    poster.inbox.put("source", "things", [b'{"number": 1}', b"[2]"], refused=[('{"number": "x"}', "number is no number")])
    assert (outcome := pulled.run()).refused == 2 and outcome.changed == 1
    assert pulled.run().refused == 0
    state = State.open(f"sqlite:///{pulled.folder / 'state.db'}", pulled.folder)
    letters = state.ledger.dead_letters(pulled.name)
    state.close()
    assert sorted((letter.record, letter.reason, letter.times) for letter in letters) == [
        ("[2]", "it is no object", 1),
        ('{"number": "x"}', "number is no number", 1),
    ]
    assert poster.inbox.waiting("source") == {}


def test_only_refused_events_leave_an_empty_inbox_and_a_table_with_its_columns(appended: tuple[Poster, Pulled]) -> None:
    poster, pulled = appended
    poster.inbox.put("source", "things", [], refused=[("{}", "number is missing")])
    assert pulled.run().refused == 1
    assert poster.inbox.waiting("source") == {}
    table = Lake(str(pulled.folder / "lake")).existing(pulled.name)
    assert table.schema.names == ["_id", "_received_at"]
