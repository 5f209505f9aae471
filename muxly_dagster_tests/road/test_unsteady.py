"""Whatever a destination refuses, fails at and takes out of turn, with whatever policy: nothing is lost, doubled or miscounted."""

import random
from dataclasses import dataclass, field

import pytest

from muxly_dagster import records
from muxly_dagster.destination import Delivery, Receipt
from muxly_dagster.errors import ConfigurationError, RecordRefused, RetryLater
from muxly_dagster.messages import Settled
from muxly_dagster.routing import Router
from muxly_dagster_tests.road.acting import acting, seqs, totals
from muxly_dagster_tests.road.lane import BIG, EVERYTHING, Road

MOST_RUNS = 300


@dataclass
class Unsteady:
    """Takes some records, refuses the bad ones (perhaps only as a batch), and fails at others for now. Remembers what it took."""

    chance: random.Random
    bad: set[int]
    whole: bool
    fails: float
    taken: list[int] = field(default_factory=list)

    def __call__(self, delivery: Delivery) -> Receipt:
        settled, given = Settled(delivery), seqs(delivery)
        if self.whole and len(given) > 1 and self.bad.intersection(given):
            raise RecordRefused("one of them is not wanted")
        failing = {seq for seq in given if self.chance.random() < self.fails}
        for seq in given:
            if seq in self.bad - failing:
                settled.refuse([seq], "not wanted")
            elif seq not in failing:
                self.taken.append(seq)
                settled.accept([seq])
        trouble = self.chance.choice([RetryLater("away"), ConfigurationError("odd")])
        return settled.receipt({}, trouble if failing else None)


@pytest.mark.parametrize("seed", range(40))
def test_every_record_has_one_end(road: Road, seed: int) -> None:
    chance = random.Random(seed)
    names = [chance.choice("abcd") for _ in range(chance.randint(1, 14))]
    road.store(*({"id": str(n), "customer": name, "amount": chance.choice([5, 500])} for n, name in enumerate(names, 1)))
    bad = {seq for seq in range(1, len(names) + 1) if chance.random() < 0.35}
    unsteady = Unsteady(chance, bad, chance.random() < 0.3, chance.choice([0.0, 0.3]))
    router: Router = chance.choice([EVERYTHING, BIG])
    likes = chance.random() < 0.7
    policy = {
        "breaker": {"failures": 0},
        "on_error": chance.choice(["retry", "retry", "dead_letter"]),
        "batching": chance.choice([{}, {"count": 1}, {"count": 3}]),
        "dedupe": {"within": "9h", "by": ["customer"]} if likes else None,
    }
    target = acting(road, unsteady, router, **policy)
    for _ in range(MOST_RUNS):
        try:
            road.deliver(target, attempts=chance.choice([1, 2]))
            break
        except (RetryLater, ConfigurationError):
            continue

    taken, letters = unsteady.taken, {letter.seq for letter in road.state.ledger.dead_letters()}
    rows = road.lake.existing("crm.deals").changes(0, len(names)).to_pylist()
    routed = {row[records.SEQ] for row in rows if router is EVERYTHING or row["amount"] > 100}
    assert len(taken) == len(set(taken)), "nothing was taken twice"
    assert totals(road) == (len(names), len(taken), len(letters), len(names) - len(taken) - len(letters))
    assert not letters.intersection(taken)
    assert letters <= bad or policy["on_error"] == "dead_letter"
    left = routed - letters - set(taken)
    if not likes:
        assert not left
    for name in names:
        delivered = [seq for seq in taken if names[seq - 1] == name]
        assert len(delivered) <= 1 or not likes
        assert delivered or not any(names[seq - 1] == name for seq in left), "one that is held back has one like it that was delivered"
