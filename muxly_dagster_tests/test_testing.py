"""The destination in memory keeps the contract itself, and misbehaves as it is told; whoever breaks a promise is found out."""

import inspect
from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar, TypeVar

import pytest
from pydantic import Field, SecretStr

from muxly_dagster.destination import Delivery, Message, Plan, Receipt
from muxly_dagster.errors import MuxlyError, RecordRefused, RetryLater, SignInError
from muxly_dagster.resource import CheckResult
from muxly_dagster.testing import EVERY_TYPE, DestinationContract, MemoryDestination, delivery

_PASSWORD = "correct-horse-battery"
_WRONG = "wrong-horse-battery"

_D = TypeVar("_D", bound=MemoryDestination)


def _too_big(record: dict[str, Any]) -> str | None:
    return "too big" if record["data"]["amount"] > 10 else None


class Safe(MemoryDestination):
    """A memory behind a password."""

    type: ClassVar[str] = "safe"
    title: ClassVar[str] = "Safe"

    password: SecretStr = Field(description="What opens it.")
    shelf: int = Field(1, description="Which shelf.")

    def deliver(self, delivery: Delivery) -> Receipt:
        """Take the records, if the password is right."""
        if self.password.get_secret_value() == _WRONG:
            raise SignInError("the safe stays shut", do="give the right password")
        return super().deliver(delivery)

    def check(self) -> CheckResult:
        """Try the password."""
        if self.password.get_secret_value() == _WRONG:
            return CheckResult("failed", "open it", "the safe stays shut", "give the right password")
        return super().check()


class BreaksOff(MemoryDestination):
    """Breaks off once, after two records."""

    def deliver(self, delivery: Delivery) -> Receipt:
        """Take two."""
        self.go_down(after_records=2)
        receipt = super().deliver(delivery)
        self.come_up()
        return receipt


def made(kind: type[_D], **fields: Any) -> _D:
    """A destination from fields as they stand in muxly.yaml."""
    return kind(**fields)


def beside(other: MemoryDestination, destination: _D) -> _D:
    """The same memory, through another destination."""
    destination._memory = other.memory
    return destination


class TestMemory(DestinationContract):
    keeps = "changes"
    columns = tuple(name for name in EVERY_TYPE if name not in ("a_decimal", "some_bytes", "a_date", "a_time"))

    memory: MemoryDestination

    @pytest.fixture
    def destination(self) -> MemoryDestination:
        self.memory = made(MemoryDestination)
        return self.memory

    def stored(self, destination: MemoryDestination) -> list[dict[str, Any]]:
        return destination.data

    def away(self) -> MemoryDestination:
        memory = made(MemoryDestination)
        memory.go_down()
        return memory

    def interrupted(self) -> MemoryDestination | None:
        return beside(self.memory, made(BreaksOff))


class TestSafe(TestMemory):
    kind: type[Safe] = Safe

    @pytest.fixture
    def destination(self) -> Safe:
        return self.fresh()

    def fresh(self) -> Safe:
        safe = made(self.kind, password=SecretStr(_PASSWORD))
        self.memory = safe
        return safe

    def wrong(self) -> Safe:
        return beside(self.memory, made(self.kind, password=SecretStr(_WRONG)))


# ---- promises that are broken ----------------------------------------------------------------------------------------


class TellsItsPassword(Safe):
    def check(self) -> CheckResult:
        result = super().check()
        return CheckResult(result.status, result.tried, f"{result.what} with {self.password.get_secret_value()}", "try another")


class TellsItsPasswordToTheLog(Safe):
    def deliver(self, delivery: Delivery) -> Receipt:
        try:
            return super().deliver(delivery)
        except SignInError as error:
            # What a driver's own exception says is in the chain, unless somebody cuts it off.
            raise SignInError("the safe stays shut", do="look") from ValueError(f"{error.what}: {self.password.get_secret_value()}")


class TellsItsPasswordInTheReceipt(Safe):
    def deliver(self, delivery: Delivery) -> Receipt:
        return Receipt(super().deliver(delivery).accepted, detail={"with": self.password.get_secret_value()})


class TakesAnyPassword(Safe):
    def deliver(self, delivery: Delivery) -> Receipt:
        return MemoryDestination.deliver(self, delivery)


class RefusesRecordsForThePassword(Safe):
    def deliver(self, delivery: Delivery) -> Receipt:
        try:
            return super().deliver(delivery)
        except SignInError as error:
            raise RecordRefused(error.what) from None


class RaisesInsteadOfSaying(Safe):
    def check(self) -> CheckResult:
        if self.password.get_secret_value() == _WRONG:
            raise SignInError("the safe stays shut", do="give the right password")
        return super().check()


class DeliversWhenItPlans(Safe):
    def plan(self, delivery: Delivery) -> Plan:
        self.deliver(delivery)
        return Plan(inserted=2)


class ShowsWhatIsNotThere(Safe):
    def render(self, delivery: Delivery) -> Sequence[Message]:
        return [Message((99,), "nothing")]


class CannotDelete(Safe):
    def deliver(self, delivery: Delivery) -> Receipt:
        if any(record["op"] == "delete" for record in delivery.records()):
            raise RecordRefused("nothing is deleted here")
        return super().deliver(delivery)


class WantsKeys(Safe):
    def deliver(self, delivery: Delivery) -> Receipt:
        if delivery.key:
            return super().deliver(delivery)
        once = {record["data"]["id"]: record for record in delivery.records()}
        self.memory.taken += once.values()
        return Receipt(len(delivery.rows))


class CutsInSilence(Safe):
    def deliver(self, delivery: Delivery) -> Receipt:
        receipt = super().deliver(delivery)
        for record in self.memory.taken:
            record["data"].update({name: value[:100] for name, value in record["data"].items() if isinstance(value, str)})
        return receipt


class MixesUpNothingAndEmpty(Safe):
    def deliver(self, delivery: Delivery) -> Receipt:
        receipt = super().deliver(delivery)
        for record in self.memory.taken:
            record["data"].update({name: None for name, value in record["data"].items() if value == ""})
        return receipt


class SaysNothingOfAField(Safe):
    colour: str = "green"


class ItsTemplateIsNoField(Safe):
    templates: ClassVar[tuple[str, ...]] = ("text",)


class ItsExampleDoesNotLoad(Safe):
    example: ClassVar[dict[str, Any]] = {"shelf": "upper"}


class ItsTemplateHoldsThePassword(Safe):
    @classmethod
    def config_template(cls, name: str) -> str:
        return super().config_template(name).replace("${MINE_PASSWORD}", _PASSWORD)


class ClaimsTooMuch(BreaksOff):
    def deliver(self, delivery: Delivery) -> Receipt:
        receipt = super().deliver(delivery)
        return Receipt(receipt.accepted + 1, upto=3, retry=receipt.retry)


class SafeThatClaimsTooMuch(TestSafe):
    def interrupted(self) -> MemoryDestination:
        return beside(self.memory, made(ClaimsTooMuch))


_BREACHES: list[tuple[type[Safe], str]] = [
    (TellsItsPassword, "no_secret_is_shown"),
    (TellsItsPassword, "a_wrong_credential_is_told_with_what_to_do"),
    (RaisesInsteadOfSaying, "a_wrong_credential_is_told_with_what_to_do"),
    (TellsItsPasswordToTheLog, "a_delivery_with_a_wrong_credential_loses_nothing"),
    (TellsItsPasswordInTheReceipt, "no_secret_is_shown"),
    (TakesAnyPassword, "a_delivery_with_a_wrong_credential_loses_nothing"),
    (RefusesRecordsForThePassword, "a_delivery_with_a_wrong_credential_loses_nothing"),
    (DeliversWhenItPlans, "looking_ahead_delivers_nothing"),
    (ShowsWhatIsNotThere, "looking_ahead_delivers_nothing"),
    (CannotDelete, "a_delete_is_taken"),
    (WantsKeys, "a_table_without_a_key_is_taken"),
    (CutsInSilence, "a_long_text_arrives_whole"),
    (MixesUpNothingAndEmpty, "texts_of_every_kind_arrive"),
    (SaysNothingOfAField, "what_it_says_of_itself_can_be_relied_on"),
    (ItsTemplateIsNoField, "what_it_says_of_itself_can_be_relied_on"),
    (ItsExampleDoesNotLoad, "the_template_names_the_type_holds_no_secret_and_loads"),
    (ItsTemplateHoldsThePassword, "the_template_names_the_type_holds_no_secret_and_loads"),
]


def keep(suite: TestSafe, promise: str, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Ask a destination to keep one promise, as pytest would."""
    given = {"destination": suite.fresh(), "tmp_path": tmp_path, "caplog": caplog}
    test = getattr(suite, f"test_{promise}")
    test(**{name: given[name] for name in inspect.signature(test).parameters})


@pytest.mark.parametrize(("kind", "promise"), _BREACHES, ids=lambda value: getattr(value, "__name__", value))
def test_a_broken_promise_is_found_out(kind: type[Safe], promise: str, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    suite = TestSafe()
    keep(suite, promise, tmp_path, caplog)
    suite.kind = kind
    with pytest.raises((AssertionError, MuxlyError, pytest.fail.Exception)) as caught:
        keep(suite, promise, tmp_path, caplog)
    if isinstance(caught.value, AssertionError):
        assert _PASSWORD not in str(caught.value) and _WRONG not in str(caught.value)


def test_claiming_more_than_was_taken_is_found_out(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with pytest.raises(AssertionError):
        keep(SafeThatClaimsTooMuch(), "an_interrupted_delivery_answers_for_what_it_took", tmp_path, caplog)


# ---- a memory that misbehaves ----------------------------------------------------------------------------------------


def test_a_refused_record_is_named_and_the_others_are_taken() -> None:
    memory = made(MemoryDestination)
    memory.refuse(_too_big)
    receipt = memory.deliver(delivery([{"id": 1, "amount": 5}, {"id": 2, "amount": 11}, {"id": 3, "amount": 7}]))
    assert receipt.accepted == 2
    assert [(r.seq, r.reason) for r in receipt.refused] == [(2, "too big")]
    assert [r["id"] for r in memory.data] == [1, 3]


def test_a_batch_can_be_refused_as_a_whole_so_that_the_road_must_halve_it() -> None:
    memory = made(MemoryDestination)
    memory.refuse(_too_big, whole=True)
    with pytest.raises(RecordRefused, match="too big"):
        memory.deliver(delivery([{"id": 1, "amount": 5}, {"id": 2, "amount": 11}]))
    assert memory.data == []


def test_going_down_in_the_middle_confirms_what_was_taken() -> None:
    memory = made(MemoryDestination)
    memory.go_down(after_records=2)
    receipt = memory.deliver(delivery([{"id": 1}, {"id": 2}, {"id": 3}]))
    assert (receipt.accepted, receipt.upto) == (2, 2)
    assert isinstance(receipt.retry, RetryLater)
    with pytest.raises(RetryLater):
        memory.deliver(delivery([{"id": 3}], after=2))
    memory.come_up()
    assert memory.deliver(delivery([{"id": 3}], after=2)).accepted == 1
    assert [r["id"] for r in memory.data] == [1, 2, 3]


def test_it_fails_the_way_it_is_told() -> None:
    memory = made(MemoryDestination)
    memory.go_down(SignInError("the token expired"))
    with pytest.raises(SignInError, match="the token expired"):
        memory.deliver(delivery([{"id": 1}]))
    assert memory.check().what == "the token expired"
