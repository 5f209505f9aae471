"""The arithmetic of shared budgets: whatever is asked for, no limit is exceeded and nobody waits for ever."""

from hypothesis import given, settings
from hypothesis import strategies as st

from muxly_dagster.services import Rate
from muxly_dagster.state.schedule import HORIZON, LATE, STRETCH, Turn, current, plan, reserved, settled, share

WINDOW = Rate("w", requests=10, window=2.0)
PACED = Rate("p", spacing=0.1)


def test_a_window_gives_what_it_has_and_then_the_moment_at_which_it_has_more() -> None:
    first = plan([(WINDOW, [])], 8, 100.0)
    assert (first.starts, first.begins, first.ends) == (8, 100.0, 100.0 + STRETCH)
    turns = reserved(WINDOW, [], "a", first)
    second = plan([(WINDOW, turns)], 8, 100.0)
    assert (second.starts, second.begins) == (2, 100.0)
    third = plan([(WINDOW, reserved(WINDOW, turns, "b", second))], 8, 100.0)
    assert third.begins == 100.0 + STRETCH + 2.0


def test_a_paced_budget_gives_one_stretch_after_the_other() -> None:
    turns: list[Turn] = []
    begins = []
    for name in "abc":
        found = plan([(PACED, turns)], 100, 50.0)
        assert found.starts == int(STRETCH / 0.1)
        begins.append(round(found.begins - 50.0, 6))
        turns = reserved(PACED, turns, name, found)
    assert begins == [-0.02, 0.18, 0.38]


def test_what_is_given_back_is_free_but_for_what_was_used() -> None:
    found = plan([(WINDOW, [])], 10, 100.0)
    turns = settled(WINDOW, reserved(WINDOW, [], "a", found), "a", 4, 100.01)
    again = plan([(WINDOW, turns)], 10, 100.1)
    assert (again.starts, again.begins) == (6, 100.1)
    assert settled(PACED, [Turn("a", 0.0, 0.2, 2)], "a", 1, 0.05) == [Turn("", 0.0, 0.05 + 0.1, 1)]
    assert settled(WINDOW, turns, "", 0, 0.0) == []


def test_places_of_a_clock_that_was_ahead_are_nobodys() -> None:
    """It was set back by an hour, and whoever held them died meanwhile: nobody else should wait for as long."""
    _, held = share({}, "dead", 4, 4, 4, 3700.0, 5.0)
    may, held = share(held, "me", 0, 4, 4, 100.0, 5.0)
    assert (may, list(held)) == (4, ["me"])


def test_a_budget_with_large_steps_leaves_the_other_free_between_them() -> None:
    slow = Rate("slow", spacing=0.1)
    fast = Rate("fast", spacing=0.01)
    found = plan([(slow, []), (fast, [])], 2, 10.0)
    turns = reserved(fast, [], "a", found)
    assert [round(turn.ends - turn.begins, 6) for turn in turns] == [0.01, 0.01]
    between = plan([(fast, turns)], 5, 10.0)
    assert between.begins < found.ends


def test_whoever_would_wait_very_long_asks_again_and_a_pause_holds_everybody() -> None:
    far = [Turn("a", 0.0, 50.0, 10)]
    assert plan([(WINDOW, far)], 1, 10.0) == (0, 10.0 + HORIZON, 10.0 + HORIZON, 0.0)
    assert plan([(WINDOW, [])], 1, 10.0, paused_until=13.0).begins == 13.0


def test_turns_of_a_clock_that_was_ahead_do_not_count_and_many_past_ones_are_few() -> None:
    assert current([Turn("a", 9999.0, 9999.2, 10)], 2.0, 100.0) == []
    turns = [Turn("", n / 100, n / 100, 1) for n in range(1000)]
    few = current(turns, 100.0, 10.0)
    assert len(few) <= 500
    assert sum(turn.starts for turn in few) == 1000


@settings(max_examples=200, deadline=None)
@given(
    asked=st.lists(
        st.tuples(st.sampled_from("abc"), st.integers(1, 12), st.floats(0, 1.5), st.floats(0, 1), st.floats(0, 1)), min_size=1, max_size=60
    ),
    requests=st.integers(1, 12),
    spacing=st.sampled_from([0.0, 0.02, 0.1, 0.4]),
)
def test_no_window_ever_holds_more_than_its_requests(
    asked: list[tuple[str, int, float, float, float]], requests: int, spacing: float
) -> None:
    """Three who reserve, use a part of it all at once at some moment of their time, and tell about it when they come back."""
    rate = Rate("x", spacing=spacing, requests=requests, window=2.0)
    turns: list[Turn] = []
    now = 1000.0
    untold: dict[str, tuple[str, int, float]] = {}
    starts: list[float] = []
    for number, (who, wanted, later, part, moment) in enumerate(asked):
        now += later
        if who in untold:
            name, used, last = untold.pop(who)
            now = max(now, last)
            turns = settled(rate, current(turns, rate.window, now), name, used, last)
        found = plan([(rate, current(turns, rate.window, now))], wanted, now)
        if found.starts:
            turns = reserved(rate, current(turns, rate.window, now), str(number), found)
            used, at = round(found.starts * part), max(now, found.begins + moment * (found.ends - found.begins))
            starts += [at] * used
            untold[who] = (str(number), used, at)
    for start in starts:
        assert sum(start <= other < start + rate.window - 1e-5 for other in starts) <= requests


@settings(max_examples=150, deadline=None)
@given(
    asked=st.lists(st.tuples(st.sampled_from("abcde"), st.integers(0, 6), st.integers(0, 6), st.floats(0, 2)), min_size=1, max_size=80),
    most=st.integers(1, 6),
)
def test_places_are_never_given_twice(asked: list[tuple[str, int, int, float]], most: int) -> None:
    held: dict = {}  # type: ignore[type-arg]
    running = dict.fromkeys("abcde", 0)
    now = 100.0
    for who, ends, wanted, later in asked:
        now += later * 0.1
        running[who] = max(0, running[who] - ends)
        may, held = share(held, who, running[who], wanted, most, now, 1000.0)
        running[who] = max(running[who], min(wanted, may))
        assert sum(places.count for places in held.values()) <= most
        assert sum(running.values()) <= most


def test_everybody_gets_a_place_though_there_is_one_for_all() -> None:
    held: dict = {}  # type: ignore[type-arg]
    had = dict.fromkeys("abc", 0)
    for step in range(200):
        for who in "abc":
            may, held = share(held, who, 0, 4, 1, 100.0 + step * 0.1, 5.0)
            had[who] += may
    assert min(had.values()) > 30


def test_late_starts_have_time_enough() -> None:
    for spacing in (0.001, 0.03, 0.049, 0.5):
        found = plan([(Rate("x", spacing=spacing), [])], 1, 0.0)
        assert found.ends - found.begins >= LATE
