"""A connector's work in a process of its own: what it hears, what it leaves out, and that nothing of it stays behind."""

import json
import logging
import os
import subprocess
import sys
import textwrap
import time
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from muxly_dagster import child, records
from muxly_dagster.errors import ConfigurationError, MuxlyError, RetryLater, SignInError, SourceError


def work(folder: Path, body: str, **more: Any) -> child.Work:
    """A child whose script has this body for `run`."""
    script = folder / "script.py"
    explain = "def explain(error):\n    return {'message': str(error), **getattr(error, 'told', {})}\n"
    head = "import os, sys, time, json, subprocess\n"
    script.write_text(f"{head}def run(request):\n{textwrap.indent(textwrap.dedent(body), '    ')}\n{explain}", "utf-8")
    return child.Work(**{"name": "desk", "package": "desk-sdk", "python": sys.executable, "script": script, "folder": folder} | more)


def heard(asked: child.Work) -> list[Any]:
    return [message.state for message in child.messages(asked)]


def refused(asked: child.Work, kind: type[MuxlyError]) -> str:
    with pytest.raises(kind) as caught:
        heard(asked)
    return str(caught.value)


def is_running(pid: int) -> bool:
    """Whether there is such a process that has not ended (one that has may wait for somebody to take note)."""
    stat = Path(f"/proc/{pid}/stat")
    try:
        return stat.read_text().rpartition(")")[2].split()[0] != "Z" if stat.parent.parent.is_dir() else not os.kill(pid, 0)
    except (OSError, IndexError):
        return False


def gone(pid: int) -> bool:
    for _ in range(200):
        if not is_running(pid):
            return True
        time.sleep(0.05)
    return False


def test_it_gets_the_request_and_its_messages_arrive_in_order(tmp_path: Path) -> None:
    asked = work(tmp_path, "for n in range(request['count']): yield {'type': 'STATE', 'state': n}", request={"count": 3})
    assert heard(asked) == [0, 1, 2]


def test_a_request_longer_than_a_pipe_holds(tmp_path: Path) -> None:
    asked = work(tmp_path, "yield {'type': 'STATE', 'state': len(request['text'])}", request={"text": "x" * 300_000})
    assert heard(asked) == [300_000]


def test_it_gets_no_variable_that_it_does_not_need(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MUXLY_DATABASE_URL", "postgresql://me:s3cret@db/muxly")
    monkeypatch.setenv("CRM_TOKEN", "s3cret")
    monkeypatch.setenv("HTTPS_PROXY", "http://proxy:3128")
    [seen] = heard(work(tmp_path, "yield {'type': 'STATE', 'state': dict(os.environ)}", request={}, environ={"OWN": "1"}))
    assert "s3cret" not in json.dumps(seen)
    assert (seen["HTTPS_PROXY"], seen["OWN"], seen["PATH"]) == ("http://proxy:3128", "1", os.environ["PATH"])
    assert not Path(seen["TMPDIR"]).exists(), "its temporary folder goes with it"


def test_what_libraries_print_is_no_message_but_log(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    body = """
        print("hello from a library with tok3n-of-mine")
        os.write(1, b"raw words\\n")
        yield {"type": "LOG", "log": {"level": "WARN", "message": "slow down, tok3n-of-mine"}}
        yield {"type": "STATE", "state": 1}
    """
    assert heard(work(tmp_path, body, request={}, secrets=("tok3n-of-mine",))) == [1]
    assert "hello from a library with ***" in caplog.text
    assert "raw words" in caplog.text
    assert [record.levelname for record in caplog.records if "slow down, ***" in record.getMessage()] == ["WARNING"]


@pytest.mark.parametrize(
    ("told", "kind"),
    [
        ({"status": 401}, SignInError),
        ({"status": 503}, RetryLater),
        ({"failure_type": "transient_error"}, RetryLater),
        ({"failure_type": "config_error"}, ConfigurationError),
        ({"failure_type": "missing_package"}, ConfigurationError),
        ({}, SourceError),
    ],
    ids=str,
)
def test_an_error_is_sorted_by_what_to_do_and_tells_no_secret(tmp_path: Path, told: dict[str, Any], kind: type[MuxlyError]) -> None:
    body = f"""
        yield {{"type": "STATE", "state": 1}}
        error = ValueError("no entry for tok3n-of-mine"); error.told = {told!r}
        raise error
    """
    said = refused(work(tmp_path, body, request={}, secrets=("tok3n-of-mine",)), kind)
    assert "desk: no entry for ***" in said
    assert "tok3n" not in said


def test_one_that_dies_is_told_with_its_code_and_last_words(tmp_path: Path) -> None:
    body = "print('the disk is full of tok3n-of-mine', flush=True); yield {'type': 'STATE', 'state': 1}; os._exit(7)"
    said = refused(work(tmp_path, body, request={}, secrets=("tok3n-of-mine",)), SourceError)
    assert "exit code 7" in said
    assert "the disk is full of ***" in said


def test_one_that_is_killed_by_the_machine_can_be_tried_again(tmp_path: Path) -> None:
    assert "SIGKILL" in refused(work(tmp_path, "os.kill(os.getpid(), 9); yield {}", request={}), RetryLater)


def test_one_that_ends_early_as_if_all_were_well_has_not_said_everything(tmp_path: Path) -> None:
    assert "before it had said everything" in refused(
        work(tmp_path, "yield {'type': 'STATE', 'state': 1}; os._exit(0)", request={}), SourceError
    )


def test_rubbish_is_no_message(tmp_path: Path) -> None:
    said = refused(work(tmp_path, "yield b'<html>tok3n-of-mine</html>'", request={}, secrets=("tok3n-of-mine",)), SourceError)
    assert "<html>***</html>" in said


def test_one_that_says_nothing_is_ended(tmp_path: Path) -> None:
    body = "print(os.getpid(), flush=True); time.sleep(600); yield {}"
    said = refused(work(tmp_path, body, request={}, silence=0.7), RetryLater)
    assert "nothing for 0.7 seconds" in said
    if "last words" in said:  # a very slow machine ends it before it could begin
        assert gone(int(said.split("last words were: ")[1].split()[0]))


def test_a_pull_that_stops_leaves_no_process_behind(tmp_path: Path) -> None:
    body = """
        deaf = subprocess.Popen([sys.executable, "-c", "import signal, time; signal.signal(15, signal.SIG_IGN); time.sleep(600)"])
        yield {"type": "STATE", "state": [os.getpid(), deaf.pid]}
        sys.stdout.flush(); time.sleep(1.2)
        while True: yield {"type": "STATE", "state": 0}
    """
    said = child.messages(work(tmp_path, body, request={}))
    pids = next(said).state
    said.close()  # type: ignore[attr-defined]
    assert [pid for pid in pids if not gone(pid)] == []


def test_one_whose_parent_is_killed_ends_by_itself(tmp_path: Path) -> None:
    asked = work(
        tmp_path,
        "yield {'type': 'STATE', 'state': os.getpid()}; sys.stdout.flush(); yield {'type': 'STATE', 'state': 'x' * 70000}; time.sleep(600)",
        request={},
    )
    program = (
        "import sys; from pathlib import Path; from muxly_dagster import child\n"
        f"asked = child.Work('desk', 'sdk', sys.executable, Path({str(asked.script)!r}), Path({str(tmp_path)!r}), {{}})\n"
        "for message in child.messages(asked): print(message.state if isinstance(message.state, int) else '', flush=True)"
    )
    root = Path(__file__).parents[1]
    with subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, cwd=root) as parent:
        assert parent.stdout is not None
        pid = int(parent.stdout.readline())
        assert is_running(pid)
        parent.kill()
    assert gone(pid)


def test_an_interpreter_that_is_not_there(tmp_path: Path) -> None:
    said = refused(work(tmp_path, "yield {}", request={}, python=str(tmp_path / "nowhere")), ConfigurationError)
    assert "nowhere cannot be started" in said
    assert "desk-sdk" in said


def test_records_become_batches_with_exact_values_and_the_state_as_cursor(tmp_path: Path) -> None:
    body = """
        schema = {"properties": {"at": {"type": "string", "format": "date-time"}, "big": {"type": "number"}}}
        yield {"type": "CATALOG", "catalog": {"streams": [{"json_schema": schema}]}}
        for n in range(700): yield {"type": "RECORD", "record": {"data": {"id": n, "at": "2026-03-01T00:00:00Z", "in": {"a": n}}}}
        yield {"type": "STATE", "state": {"n": 700}}
        yield b'{"type":"RECORD","record":{"data":{"id":700,"at":"soon","big":12345678901234567890.5}}}'
        yield {"type": "STATE", "state": {"n": 701}}
    """
    first, second = child.batches(child.messages(work(tmp_path, body, request={})), None, keep_states=True)
    assert (len(first.rows), first.cursor, second.cursor) == (700, {"n": 700}, {"n": 701})
    assert first.rows.schema.field("at").type == records.TIMESTAMP
    assert records.is_json(first.rows.schema.field("in"))
    [last] = second.rows.to_pylist()
    assert (last["id"], last["at"], last["big"]) == (700, "soon", "12345678901234567890.5"), "a hint that does not fit widens its column"


def test_hints_of_a_json_schema() -> None:
    said = {
        "a": {"type": ["null", "integer"]},
        "b": {"type": "string", "format": "date"},
        "c": {"type": ["string", "integer"]},
        "d": {"type": "array"},
    }
    hints = child.hinted({"properties": {**said, "e": True, "f": {"type": "number", "airbyte_type": "integer"}}})
    assert {field.name: field.type for field in hints} == {"a": pa.int64(), "b": pa.date32(), "d": pa.string(), "f": pa.int64()}
