"""Lines: one text, or many that were put one behind the other, and the same to whoever looks."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from muxly_dagster.collecting import Gathered, Lines

lines = st.lists(st.binary(min_size=1, max_size=9).map(lambda each: b"{%b}" % each.replace(b"\n", b" ")), max_size=6)


def kept(found: Lines) -> tuple[int, bytes, list[bytes]]:
    return len(found), found.text, list(found)


@given(lines, lines, st.sets(st.integers(0, 12)))
def test_lines_are_the_same_however_they_came_together(first: list[bytes], second: list[bytes], places: set[int]) -> None:
    together = Lines([b"\n".join(first)], len(first)) if first else Lines()
    for line in second:
        together.append(line)
    extended = Lines(first)
    extended.extend(Lines([b"\n".join(second)], len(second)) if second else Lines())
    everything = first + second
    assert kept(together) == kept(extended) == (len(everything), b"\n".join(everything), everything)
    assert together == extended == everything and [together[at] for at in range(len(everything))] == everything
    without = [line for at, line in enumerate(everything) if at not in places]
    assert kept(together.without(places)) == (len(without), b"\n".join(without), without)


def test_lines_differ_by_what_they_hold() -> None:
    assert Lines([b"{}"]) != Lines([b"{}", b"{}"]) and Lines([b"{}"]) != [b"[]"] and Lines() != ""
    assert repr(Lines([b"{}\n[]"], 2)) == "Lines([b'{}', b'[]'])"
    with pytest.raises(IndexError):
        Lines([b"{}"])[1]


def test_their_size_is_known_before_they_are_joined() -> None:
    found = Lines([b"{}", b"[1]"])
    assert found.size == 5 and Lines().size == 0
    assert found.text == b"{}\n[1]" and found.size == 6


def test_lines_may_be_given_as_a_list() -> None:
    assert Gathered("signups", [b"{}"], ["a"], (0,)) == Gathered("signups", Lines([b"{}"]), ["a"], (0,))  # type: ignore[arg-type]
