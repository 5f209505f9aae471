"""Selections: names, groups and what stands before and after them."""

import pytest

from muxly_dagster.errors import ConfigurationError
from muxly_dagster.project.selection import Selection

SELECTION = Selection(
    parents={"crm.a": (), "crm.b": (), "late": ("early",), "early": ("crm.a",), "out.box": ("late",), "out.bin": ("crm.b",)},
    groups={"crm": ["crm.a", "crm.b"], "out": ["out.box", "out.bin"], "empty": []},
    jobs={"nightly": ["+late"]},
)


@pytest.mark.parametrize(
    ("patterns", "selected"),
    [
        (["crm"], ["crm.a", "crm.b"]),
        (["crm.a"], ["crm.a"]),
        (["crm/a"], ["crm.a"]),
        (["out", "crm.b"], ["crm.b", "out.box", "out.bin"]),
        (["+late"], ["crm.a", "early", "late"]),
        (["1+late"], ["early", "late"]),
        (["crm.a+"], ["crm.a", "early", "late", "out.box"]),
        (["crm.a+1"], ["crm.a", "early"]),
        (["+early+"], ["crm.a", "early", "late", "out.box"]),
        (["nightly"], ["crm.a", "early", "late"]),
        (["*"], ["crm.a", "crm.b", "early", "late", "out.box", "out.bin"]),
        ([], []),
    ],
)
def test_what_patterns_select_comes_in_an_order_to_run(patterns: list[str], selected: list[str]) -> None:
    assert SELECTION.select(patterns) == selected


@pytest.mark.parametrize(
    ("pattern", "near"), [("crm.aa", "did you mean crm.a?"), ("nighty", "did you mean nightly?"), ("+out.bix", "out.b"), ("empty", "")]
)
def test_a_name_that_selects_nothing_is_answered_with_the_nearest(pattern: str, near: str) -> None:
    with pytest.raises(ConfigurationError, match="nothing called") as caught:
        SELECTION.select(["crm", pattern])
    assert near in caught.value.problems[0].do


@pytest.mark.parametrize("pattern", ["", "+", "a++b", "++"])
def test_a_pattern_that_makes_no_sense_names_nothing(pattern: str) -> None:
    with pytest.raises(ConfigurationError):
        SELECTION.select([pattern])
