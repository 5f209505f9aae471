"""Lines of processes as people read them: Dagster's noise is left out, what goes wrong is not, and nothing steers the terminal."""

import io
import os

import pytest

from muxly_dagster.serving.lines import Lines, calmed

RUN = "2026-11-27 13:34:10 +0000 - dagster - DEBUG - everything - 75ca66a8-9503-4e2c-8d72-1bad4521d9bd - 30769 - "


@pytest.mark.parametrize(
    ("line", "told"),
    [
        (RUN + 'RUN_START - Started execution of run for "everything".', "everything (75ca66a8) began"),
        (RUN + 'RUN_SUCCESS - Finished execution of run for "everything".', "everything (75ca66a8) went well"),
        (
            RUN + "shop__orders - STEP_FAILURE - Execution of step failed.",
            "everything (75ca66a8) failed at shop.orders: Execution of step failed.",
        ),
        (RUN.replace("everything", "__ASSET_JOB") + "RUN_START - Started execution.", "assets (75ca66a8) began"),
        (RUN + "shop__orders - STEP_OUTPUT - Yielded output", ""),
        (RUN + "ENGINE_EVENT - Executing steps in process (pid: 30769)", ""),
        (RUN.replace("DEBUG", "INFO") + "shop__orders - half way through", "everything (75ca66a8): shop__orders - half way through"),
        ("2026-11-27 13:34:58 +0000 - dagster.code_server - INFO - Code server was interrupted", ""),
        ("2026-11-27 13:34:58 +0000 - dagster.code_server - ERROR - it broke", "error: it broke"),
        ('{"event": "Launched 1 runs.", "logger": "dagster.daemon", "level": "info"}', ""),
        ('{"event": "Slow", "logger": "dagster.daemon", "level": "warning"}', "warning: Slow"),
        (
            '{"event": "Tick failed", "level": "error", "exc_info": ["<class \'ValueError\'>", "ValueError(\'no 7\')"]}',
            "error: Tick failed: no 7",
        ),
        (
            '{"event": "Tick failed", "level": "error", "exc_info": ["<class \'x.DagsterUserCodeUnreachableError\'>", "X(\'away\')"]}',
            "",
        ),
        (
            '{"event": "Tick", "level": "error", "exc_info": ["<class \'LoadError\'>", "X(\'x.DagsterUserCodeUnreachableError: away\')"]}',
            "",
        ),
        ('{"amount": 3}', '{"amount": 3}'),
        ("{ not JSON", "{ not JSON"),
        ("anything else", "anything else"),
    ],
)
def test_a_line_says_what_a_person_wants_to_know(line: str, told: str) -> None:
    assert calmed(line) == told


def test_what_steers_a_terminal_is_taken_out() -> None:
    out = io.StringIO()
    Lines(out).heard("api", "\x1b[31mred\x1b[0m \x1b]0;title\x07and \x9b2Jmore\r")

    assert out.getvalue() == "api    │ red 0;titleand 2Jmore\n"


def test_the_last_lines_of_each_process_are_remembered() -> None:
    lines = Lines(io.StringIO())
    for number in range(30):
        lines.heard("api", f"line {number}")
    lines.heard("web", "other")

    assert lines.last("api", 2) == ["line 28", "line 29"]
    assert lines.last("nobody") == []


def test_verbose_leaves_nothing_out() -> None:
    out = io.StringIO()
    Lines(out, verbose=True).heard("code", RUN + "shop__orders - STEP_OUTPUT - Yielded output")

    assert "STEP_OUTPUT" in out.getvalue()


def test_a_reader_that_goes_away_stops_nothing() -> None:
    reading, writing = os.pipe()
    with os.fdopen(writing, "w", encoding="utf-8", closefd=True) as out:
        lines = Lines(out)
        lines.say("somebody listens")
        os.close(reading)
        for number in range(3):
            lines.heard("api", f"nobody reads line {number}")
        assert lines.last("api", 1) == ["nobody reads line 2"]
        devnull = os.open(os.devnull, os.O_WRONLY)
        os.dup2(devnull, writing)  # what the buffer still holds goes there when the file is closed
        os.close(devnull)
