"""The list of what can be wrong names tests that exist."""

import pytest

from muxly_dagster_tests import bad_input
from muxly_dagster_tests.bad_input import (
    test_answers,
    test_connectors,
    test_declarations,
    test_disks,
    test_manifests,
    test_records,
    test_surroundings,
)

MODULES = {
    module.__name__.rpartition(".")[2]: module
    for module in (test_answers, test_connectors, test_declarations, test_disks, test_manifests, test_records, test_surroundings)
}
CASES: dict[str, list[str]] = {
    "test_answers": [*test_answers.CASES],
    "test_connectors": [*test_connectors.CASES],
    "test_declarations": [*test_declarations.MISTAKES],
    "test_manifests": [*test_manifests.PACKINGS],
    "test_records": [*test_records.UNREADABLE],
}
LINES = [line.split(" -> ") for line in (bad_input.__doc__ or "").splitlines() if " -> test_" in line]


def test_the_list_is_there() -> None:
    assert len(LINES) == 42


@pytest.mark.parametrize(("what", "place"), LINES, ids=[what for what, _ in LINES])
def test_what_can_be_wrong_has_a_test(what: str, place: str) -> None:
    module, _, name = place.partition(": ")
    assert hasattr(MODULES[module], name) or name in CASES.get(module, []), what
