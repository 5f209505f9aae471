"""Jobs that lie in the state: made, changed by one at a time, paused, and read where there may be no database."""

import json
import logging
import threading
from pathlib import Path

import pytest
import sqlalchemy as sa

from muxly_dagster.errors import RetryLater
from muxly_dagster.state import State
from muxly_dagster.state.jobs import glance, made_jobs

NIGHTLY = {"select": ["crm"], "cron": "@daily", "webhook": {"secret": "${HOOK_SECRET}"}}


def test_a_job_is_made_once_changed_and_forgotten(state: State) -> None:
    made = state.jobs.create("nightly", NIGHTLY)
    assert made is not None
    assert (made.spec, made.paused, made.version) == (NIGHTLY, False, 1)
    assert state.jobs.create("nightly", {"select": ["web"]}) is None
    assert state.jobs.read("nightly") == made
    changed = state.jobs.change("nightly", {"select": ["web"]}, 1)
    assert changed is not None
    assert (changed.spec, changed.version) == ({"select": ["web"]}, 2)
    assert state.jobs.change("nightly", NIGHTLY, 1) is None, "somebody else was faster"
    assert not state.jobs.delete("nightly", 1)
    assert state.jobs.delete("nightly", 2)
    assert state.jobs.read("nightly") is None
    assert not state.jobs.delete("nightly")


def test_of_those_who_change_a_version_at_once_one_gets_through(state: State) -> None:
    state.jobs.create("nightly", NIGHTLY)
    done: list[object] = []
    threads = [threading.Thread(target=lambda n=n: done.append(state.jobs.change("nightly", {"select": [str(n)]}, 1))) for n in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sum(each is not None for each in done) == 1
    assert state.jobs.made()[0].version == 2


def test_a_job_of_the_file_can_be_paused(state: State) -> None:
    assert not state.jobs.is_paused("hourly")
    paused = state.jobs.pause("hourly", paused=True)
    assert (paused.spec, paused.paused, paused.version) == (None, True, 1)
    assert state.jobs.pause("hourly", paused=True) == paused, "nothing changes the second time"
    assert state.jobs.is_paused("hourly")
    assert state.jobs.made() == []
    assert not state.jobs.pause("hourly", paused=False).paused
    state.jobs.pause("hourly", paused=True)
    made = state.jobs.create("hourly", NIGHTLY)
    assert made is not None, "what was paused is no longer in the file"
    assert not made.paused, "a new job does not begin paused"


def test_looking_creates_nothing(url: str, tmp_path: Path) -> None:
    home = tmp_path / "home"
    assert made_jobs(url, home) == []
    assert not list(tmp_path.glob("**/*.db*"))
    assert not home.exists()
    if url.startswith("postgresql"):
        engine = sa.create_engine(sa.make_url(url).set(drivername="postgresql+psycopg"))
        assert "muxly" not in sa.inspect(engine).get_schema_names()
        engine.dispose()


def test_looking_finds_what_was_made(state: State, url: str, tmp_path: Path) -> None:
    state.jobs.create("nightly", NIGHTLY)
    state.jobs.pause("hourly", paused=True)
    assert made_jobs(url, tmp_path) == state.jobs.made()
    copy = tmp_path / "jobs.json"
    assert [row["name"] for row in json.loads(copy.read_text())] == ["nightly"]
    assert copy.stat().st_mode & 0o077 == 0
    written = copy.stat().st_mtime_ns
    made_jobs(url, tmp_path)
    assert copy.stat().st_mtime_ns == written, "the copy is written when something changed"
    state.jobs.delete("nightly")
    assert made_jobs(url, tmp_path) == []
    assert json.loads(copy.read_text()) == []


def test_a_database_that_is_away_leaves_jobs_as_they_were(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    there = f"sqlite:///{tmp_path}/state.db"
    state = State.open(there, tmp_path)
    state.jobs.create("nightly", NIGHTLY)
    found = made_jobs(there, tmp_path)
    state.close()
    gone = "postgresql://muxly:pa55word@127.0.0.1:9/muxly"
    with caplog.at_level(logging.WARNING, "muxly.state"):
        assert made_jobs(gone, tmp_path) == found
    assert "as they were when last read" in caplog.text
    assert "pa55word" not in caplog.text
    with pytest.raises(RetryLater):
        glance(gone)
    (tmp_path / "jobs.json").write_text('[{"name"')
    assert made_jobs(gone, tmp_path) == []
    assert "is damaged too" in caplog.text
    (tmp_path / "jobs.json").unlink()
    assert made_jobs(gone, tmp_path) == []
    assert "are left out" in caplog.text


def test_a_damaged_database_is_no_reason_to_fail(tmp_path: Path) -> None:
    (tmp_path / "state.db").write_bytes(b"rubbish" * 1000)
    assert made_jobs(f"sqlite:///{tmp_path}/state.db", tmp_path) == []
    assert made_jobs("not a url", tmp_path) == []
