"""A supervisor's promises: what dies is started again, what keeps dying ends everything, and nothing is left behind, whoever is killed."""

import os
import signal
from pathlib import Path

import pytest

from muxly_dagster_tests.serving.supervise import PATIENCE, command_of, marked, supervised, until

pytestmark = pytest.mark.skipif(not Path("/proc/self/environ").exists(), reason="needs /proc to see what is left behind")

FAMILY = "sleep 1000 & sleep 1000 & echo here; wait"
STUBBORN = "trap '' TERM INT HUP; echo here; while true; do sleep 1; done"


def test_lines_bear_the_name_of_their_process_and_one_signal_ends_all(tmp_path: Path) -> None:
    with supervised(tmp_path, {"one": "echo from one; sleep 1000", "second": FAMILY}) as found:
        found.until_said("all ready")
        found.until_said("one    │ from one\n")
        found.until(lambda: len(found.left()) >= 4)
        found.process.send_signal(signal.SIGINT)
        assert found.process.wait(PATIENCE) == 0
        assert found.said.endswith("muxly  │ stopped\n")
        assert marked(found.mark) == []


def test_what_dies_is_started_again_after_a_pause_and_that_is_said(tmp_path: Path) -> None:
    with supervised(tmp_path, {"weak": "echo born; test -f again || { touch again; exit 3; }; sleep 1000"}) as found:
        found.until_said("weak ended with code 3; it is started again in 0.5 seconds")
        found.until_said("weak is up again")
        found.until_said("weak   │ born", 2)
        [leader] = [pid for pid in found.left() if "sh -c echo born" in command_of(pid)]
        os.kill(leader, signal.SIGKILL)
        found.until_said("weak was killed by SIGKILL; it is started again in 1 seconds")
        found.until_said("weak is up again", 2)


def test_what_keeps_dying_ends_everything_with_its_last_words(tmp_path: Path) -> None:
    with supervised(tmp_path, {"good": "sleep 1000", "bad": "echo no such thing; exit 7"}) as found:
        found.until(lambda: found.process.poll() is not None)
        assert found.process.returncode == 1
        assert "bad keeps ending: it ended with code 7, for the 5th time in a row. It said last:" in found.said
        assert "no such thing" in found.said.partition("It said last:")[2]
        assert "muxly doctor" in found.said
        assert marked(found.mark) == []


def test_a_wrong_configuration_is_waited_for_where_it_may_change(tmp_path: Path) -> None:
    with supervised(tmp_path, {"api": "test -f sound || exit 2; echo serving; sleep 1000"}, patient=True) as found:
        found.until_said("it cannot begin with this configuration")
        (tmp_path / "sound").touch()
        found.process.send_signal(signal.SIGUSR1)
        found.until_said("serving")
        assert found.said.count("ended with code 2") == 1


def test_what_stands_behind_another_starts_later_and_is_stopped_first(tmp_path: Path) -> None:
    tell = "trap 'echo {0} ends; exit' TERM; echo {0} begins; while true; do sleep 0.1; done"
    run = {"second": tell.format("second"), "first": tell.format("first")}
    with supervised(tmp_path, run, after={"second": ["first"]}) as found:
        found.until_said("begins", 2)
        found.process.send_signal(signal.SIGHUP)
        assert found.process.wait(PATIENCE) == 0
    events = [line.partition("│ ")[2] for line in found.said.splitlines() if line.endswith(("begins", "ends"))]
    assert events == ["first begins", "second begins", "second ends", "first ends"]


def test_a_second_signal_ends_at_once_what_will_not_end(tmp_path: Path) -> None:
    with supervised(tmp_path, {"deaf": STUBBORN}) as found:
        found.until_said("deaf   │ here")
        found.process.send_signal(signal.SIGTERM)
        found.until_said("Ctrl-C again stops at once")
        found.process.send_signal(signal.SIGTERM)
        assert found.process.wait(PATIENCE) == 0
        assert "interrupted now" not in found.said
        assert marked(found.mark) == []


def test_a_supervisor_that_is_killed_leaves_nothing(tmp_path: Path) -> None:
    with supervised(tmp_path, {"family": FAMILY, "other": "sleep 1000"}) as found:
        found.until_said("here")
        found.until(lambda: len(found.left()) >= 4)
        found.process.kill()
        until(lambda: marked(found.mark) == [], lambda: f"left: {[command_of(pid) for pid in marked(found.mark)]}")


def test_a_sweeper_that_is_killed_is_replaced_and_knows_everything(tmp_path: Path) -> None:
    with supervised(tmp_path, {"family": FAMILY}) as found:
        found.until_said("here")
        [sweeper] = [pid for pid in marked(found.mark) if "sweeper.py" in command_of(pid)]
        os.kill(sweeper, signal.SIGKILL)
        found.until(lambda: [pid for pid in marked(found.mark) if "sweeper.py" in command_of(pid) and pid != sweeper])
        found.process.kill()
        until(lambda: marked(found.mark) == [], lambda: f"left: {[command_of(pid) for pid in marked(found.mark)]}")
