"""The promises every destination keeps, as tests: built-in or plugin."""

import logging
import traceback
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, get_args

import pyarrow as pa
import pytest

from muxly_dagster import records
from muxly_dagster.destination import Destination, Guarantee
from muxly_dagster.errors import ConfigurationError, MuxlyError, RecordRefused, RetryLater, SignInError
from muxly_dagster.testing.destinations.changes import EVERY_TYPE, changes, delivery
from muxly_dagster.testing.destinations.declared import loaded, secrets_of

_TEXT = (
    "Zo\u00eb, \u05e2\u05d1, \u65e5\u672c, \U0001f469\u200d\U0001f467, e\u0301, <b>&amp;</b>, ${HOME}, {{ id }}, {% if %}, %s, *_`, ';--"
)
"""Letters of many scripts, and what a careless destination would take for a template, a format, markup or SQL."""


class DestinationContract:
    """What every destination must do. Subclass it with a pytest fixture `destination` and a method `stored`."""

    keeps: ClassVar[str] = "rows"
    """"rows": what is there is the newest version of each key. "changes": every change is there for itself."""

    columns: ClassVar[Sequence[str]] = tuple(EVERY_TYPE)
    """The columns of EVERY_TYPE that `stored` can read back as they were."""

    secrets: ClassVar[Sequence[str]] = ()
    """Parts of credentials that may be seen nowhere, beside what stands in fields for secrets: those within an address, for instance."""

    values: ClassVar[Mapping[str, str]] = {}
    """Values for the variables of its template (`MINE_URL`), where those of the destination under test will not do."""

    longest_text: ClassVar[int] = 100_000
    """The longest text, in characters, that arrives whole; what is longer may be cut or refused."""

    def stored(self, destination: Any) -> list[dict[str, Any]]:
        """What the destination holds now: the data of each record, nulls included or left out."""
        raise AssertionError("a subclass says how to read back what was delivered")

    def away(self) -> Destination | None:
        """The same destination where nothing answers; None if it cannot be away."""
        return None

    def wrong(self) -> Destination | None:
        """The same destination with a credential that is refused; None where there is nothing to sign in with."""
        return None

    def interrupted(self) -> Destination | None:
        """The same destination, whose other side breaks off in the middle of the next six records and then works; None if it cannot."""
        return None

    # ---- what is declared --------------------------------------------------------------------------------------------

    def test_what_it_says_of_itself_can_be_relied_on(self, destination: Any) -> None:
        """A title, a guarantee, fields with descriptions; its templates and its example are fields that there are."""
        kind = type(destination)
        fields = {info.alias or name: info for name, info in kind.model_fields.items()}
        assert kind.title and kind.guarantee in get_args(Guarantee) and kind.batch_rows > 0
        assert [name for name, info in fields.items() if not info.description] == []
        assert [name for name in (*kind.templates, *kind.example) if name not in fields] == []

    def test_the_template_names_the_type_holds_no_secret_and_loads(self, destination: Any, tmp_path: Path) -> None:
        """A commented piece of muxly.yaml to begin with: a project, once its variables are set."""
        template = type(destination).config_template("mine")
        assert f"type: {destination.type}" in template
        assert self._told(template, destination) == []
        assert type(loaded(destination, template, tmp_path, self.values)) is type(destination)

    def test_no_secret_is_shown(self, destination: Any) -> None:
        """Not where it is printed, dumped, tried or delivered to."""
        receipt = destination.deliver(delivery([{"id": 1, "name": "Ada"}]))
        said = destination.render(delivery([{"id": 2, "name": "Bob"}], after=1))
        shown = [repr(destination), str(destination), destination.model_dump(), destination.model_dump_json(), destination.check()]
        assert self._told([*shown, receipt.detail, destination.public_name("crm.deals"), said], destination) == []

    # ---- what arrives ------------------------------------------------------------------------------------------------

    def test_what_is_delivered_arrives(self, destination: Any) -> None:
        """Records arrive, and the receipt counts them."""
        receipt = destination.deliver(delivery([{"id": 1, "name": "Ada"}, {"id": 2, "name": None}]))
        assert (receipt.accepted, receipt.refused, receipt.upto, receipt.retry) == (2, (), None, None)
        assert _sorted(self.stored(destination)) == [{"id": 1, "name": "Ada"}, {"id": 2}]

    def test_every_type_arrives_exactly(self, destination: Any) -> None:
        """No value of any of the lake's types is changed on the way."""
        schema = pa.schema([pa.field("id", pa.int64()), *(pa.field(n, t) for n, (t, _) in EVERY_TYPE.items())])
        row = {"id": 1, **{name: value for name, (_, value) in EVERY_TYPE.items()}}
        receipt = destination.deliver(delivery(changes([row, {"id": 2}], schema=schema)))
        assert receipt.accepted == 2
        first, second = _sorted(self.stored(destination))
        assert {n: first[n] for n in self.columns} == {n: row[n] for n in self.columns}
        assert second == {"id": 2}

    def test_a_repeated_delivery_changes_nothing(self, destination: Any) -> None:
        """After a crash the road delivers again what it is not sure of."""
        stretch = delivery([{"id": 1, "name": "Ada"}, {"id": 2, "name": "Bob"}])
        destination.deliver(stretch)
        before = _sorted(self.stored(destination))
        again = destination.deliver(stretch)
        assert again.accepted + len(again.refused) == 2
        assert _sorted(self.stored(destination)) == before

    def test_a_repeated_delivery_that_has_grown_adds_only_what_is_new(self, destination: Any) -> None:
        """More changes may have come between a crash and the next run."""
        destination.deliver(delivery([{"id": 1}, {"id": 2}]))
        destination.deliver(delivery([{"id": 1}, {"id": 2}, {"id": 3}]))
        assert [r["id"] for r in _sorted(self.stored(destination))] == [1, 2, 3]

    def test_the_last_change_of_a_key_wins(self, destination: Any) -> None:
        """Within a delivery and across deliveries."""
        destination.deliver(delivery([{"id": 1, "name": "a"}, {"id": 1, "name": "b"}]))
        receipt = destination.deliver(delivery([{"id": 1, "name": "c"}], after=2))
        assert receipt.accepted == 1
        names = [r["name"] for r in self.stored(destination)]
        assert names[-1:] == ["c"]
        assert len(names) == (1 if self.keeps == "rows" else 3)

    def test_a_column_that_appears_later_is_taken(self, destination: Any) -> None:
        """Schemas grow."""
        destination.deliver(delivery([{"id": 1}]))
        destination.deliver(delivery([{"id": 2, "city": "Berlin"}], after=1))
        assert _sorted(self.stored(destination)) == [{"id": 1}, {"id": 2, "city": "Berlin"}]

    def test_nested_values_arrive(self, destination: Any) -> None:
        """Objects and lists travel as JSON text; the destination may store them as it likes, but not refuse them."""
        receipt = destination.deliver(delivery([{"id": 1, "tags": ["a", {"b": None}]}]))
        assert receipt.accepted == 1

    def test_texts_of_every_kind_arrive(self, destination: Any) -> None:
        """Empty, missing, of any script, and full of what means something elsewhere."""
        rows = [{"id": 1, "text": ""}, {"id": 2, "text": None}, {"id": 3, "text": _TEXT}]
        receipt = destination.deliver(delivery(rows))
        assert (receipt.accepted, receipt.refused) == (3, ())
        if "a_text" in self.columns:
            assert _sorted(self.stored(destination)) == [rows[0], {"id": 2}, rows[2]]

    def test_a_long_text_arrives_whole(self, destination: Any) -> None:
        """As long as the destination says that one may be."""
        row = {"id": 1, "text": "x" * self.longest_text}
        assert destination.deliver(delivery([row])).accepted == 1
        if "a_text" in self.columns:
            assert self.stored(destination) == [row]

    def test_a_text_that_is_too_long_is_cut_or_refused(self, destination: Any) -> None:
        """But breaks nothing else."""
        try:
            receipt = destination.deliver(delivery([{"id": 1, "text": "x" * 1_000_000}]))
        except RecordRefused as error:
            assert error.what
        else:
            assert receipt.accepted + len(receipt.refused) == 1
            assert all(refusal.seq == 1 and refusal.reason for refusal in receipt.refused)
        assert destination.deliver(delivery([{"id": 2, "text": "short"}], after=1)).accepted == 1

    def test_a_delete_is_taken(self, destination: Any) -> None:
        """Whether or not the record ever was there; where deletions are passed on, it is gone."""
        destination.deliver(delivery([{"id": 1, "name": "Ada"}, {"id": 2, "name": "Bob"}]))
        receipt = destination.deliver(delivery([{"id": 1, "name": "Ada"}, {"id": 9, "name": "Eve"}], ops=["delete", "delete"], after=2))
        assert (receipt.accepted, receipt.refused) == (2, ())
        if self.keeps == "rows":
            ids = [row["id"] for row in self.stored(destination)]
            assert 2 in ids and (1 not in ids or not destination.passes_deletes)

    def test_a_table_without_a_key_is_taken(self, destination: Any) -> None:
        """Every record counts, alike or not; one that keeps rows by their key may ask for a key instead."""
        try:
            receipt = destination.deliver(delivery([{"id": 1, "name": "Ada"}] * 2, key=(), ops=["append", "append"]))
        except ConfigurationError as error:
            assert self.keeps == "rows" and _advice(error)
            return
        assert (receipt.accepted, receipt.refused) == (2, ())
        if self.keeps == "changes":
            assert self.stored(destination) == [{"id": 1, "name": "Ada"}] * 2

    def test_two_deliveries_keep_apart(self, destination: Any) -> None:
        """Two routes may end in one destination."""
        destination.deliver(delivery([{"id": 1}], delivery_id="big_deals.warehouse"))
        destination.deliver(delivery([{"id": 2}], after=1, delivery_id="small_deals.warehouse"))
        assert [r["id"] for r in _sorted(self.stored(destination))] == [1, 2]

    def test_the_position_is_that_of_the_last_delivery(self, destination: Any) -> None:
        """Where a destination keeps positions at all."""
        before = destination.position("big_deals.warehouse", "0b8e1f9c")
        destination.deliver(delivery([{"id": 1}], after=4, upto=9))
        assert before is None
        assert destination.position("big_deals.warehouse", "0b8e1f9c") in (None, 9)
        assert destination.position("big_deals.warehouse", "another table") is None

    def test_checking_delivers_nothing(self, destination: Any) -> None:
        """`muxly check` leaves nothing behind."""
        destination.deliver(delivery([{"id": 1}]))
        before = self.stored(destination)
        assert destination.check().status == "ok"
        assert self.stored(destination) == before

    def test_looking_ahead_delivers_nothing(self, destination: Any) -> None:
        """`muxly preview` and `muxly deliver --dry-run` leave nothing behind."""
        destination.deliver(delivery([{"id": 1, "name": "Ada"}]))
        before = self.stored(destination)
        stretch = delivery([{"id": 1, "name": "Ada L."}, {"id": 2, "name": "Bob"}], after=1)
        planned, messages = destination.plan(stretch), destination.render(stretch)
        assert self.stored(destination) == before
        assert planned is None or planned.inserted + planned.updated + planned.deleted + planned.refused <= 2
        assert all(message.text and {2, 3}.issuperset(message.seqs) for message in messages)

    def test_it_says_where_records_end_up(self, destination: Any) -> None:
        """For people and for Dagster."""
        assert destination.public_name("crm.deals")

    def test_a_destination_that_is_away_asks_for_another_time(self) -> None:
        """Nothing is refused for good because a machine is down."""
        away = self.away()
        if away is None:
            return
        try:
            away.deliver(delivery([{"id": 1}]))
        except RetryLater as error:
            assert error.what and error.do
            assert self._told(traceback.format_exception(error), away) == []
        else:
            raise AssertionError("a delivery to nowhere was confirmed")
        result = away.check()
        assert result.status == "failed"
        assert self._told(result, away) == []

    def test_a_wrong_credential_is_told_with_what_to_do(self, destination: Any, caplog: pytest.LogCaptureFixture) -> None:
        """And is no exception."""
        caplog.set_level(logging.DEBUG)
        wrong = self._wrong()
        result = wrong.check()
        assert result.status == "failed"
        assert result.tried and result.what and result.do
        assert self._told([result, caplog.text], destination, wrong) == []

    def test_a_delivery_with_a_wrong_credential_loses_nothing(self, destination: Any, caplog: pytest.LogCaptureFixture) -> None:
        """It waits until somebody has renewed the credential: no record is refused for it."""
        caplog.set_level(logging.DEBUG)
        wrong = self._wrong()
        destination.deliver(delivery([{"id": 1}]))
        before = _sorted(self.stored(destination))
        with pytest.raises((SignInError, ConfigurationError)) as caught:
            wrong.deliver(delivery([{"id": 2}], after=1))
        assert caught.value.what and _advice(caught.value)
        assert self._told([str(caught.value), traceback.format_exception(caught.value), caplog.text], destination, wrong) == []
        assert _sorted(self.stored(destination)) == before
        assert destination.deliver(delivery([{"id": 2}], after=1)).accepted == 1
        assert [row["id"] for row in _sorted(self.stored(destination))] == [1, 2]

    def test_an_interrupted_delivery_answers_for_what_it_took(self, destination: Any) -> None:
        """The road sends the rest again, and every record is there once."""
        broken = self.interrupted()
        if broken is None:
            pytest.skip("it takes a delivery whole or not at all")
        rows = changes([{"id": n} for n in range(1, 7)])
        upto, ahead = 0, set[int]()
        try:
            receipt = broken.deliver(delivery(rows))
        except RetryLater as error:
            assert error.what and error.do
        else:
            assert receipt.retry is not None and receipt.upto is not None and receipt.upto < 6
            assert receipt.accepted + len(receipt.refused) in (receipt.upto, receipt.upto + len(receipt.ahead))
            upto, ahead = receipt.upto, set(receipt.ahead)
        rest = rows.filter(pa.array([seq > upto and seq not in ahead for seq in rows[records.SEQ].to_pylist()]))
        assert destination.deliver(delivery(rest, after=upto, upto=6)).accepted == len(rest)
        assert [row["id"] for row in _sorted(self.stored(destination))] == [1, 2, 3, 4, 5, 6]

    def _wrong(self) -> Destination:
        wrong = self.wrong()
        if wrong is None:
            pytest.skip("there is nothing to sign in with")
        return wrong

    def _told(self, said: Any, *known: Destination) -> list[int]:
        """Which secrets stand in what was said, by number, so that a failing test does not tell them."""
        secrets = [*self.secrets, *(secret for destination in known for secret in secrets_of(destination))]
        text = str(said)
        return [number for number, secret in enumerate(secrets) if secret in text]


def _advice(error: MuxlyError) -> bool:
    """Whether it says what to do."""
    return any(problem.do for problem in error.problems) if isinstance(error, ConfigurationError) else bool(error.do)


def _sorted(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    present = [{name: value for name, value in row.items() if value is not None} for row in rows]
    return sorted(present, key=lambda row: (row["id"], str(row)))
