"""Conditional requests: what still holds is not sent again, and nobody gets another account's answer."""

import json
import os
import stat
from pathlib import Path

import pytest
from pydantic import SecretStr

from muxly_dagster.auth import ApiKey, Bearer
from muxly_dagster.http import Http, Request
from muxly_dagster.manifest.asking.kept import ask
from muxly_dagster.services import Answers, KeptAnswer, OwnAnswers
from muxly_dagster.state.answers import KeptAnswers
from muxly_dagster_tests.http.server import Asked, Server, answer

GET = Request("GET", "/things", params={"page": 1})


@pytest.fixture(params=["in memory", "on disk"])
def answers(request: pytest.FixtureRequest, tmp_path: Path) -> Answers:
    return OwnAnswers() if request.param == "in memory" else KeptAnswers(tmp_path / "answers")


def test_an_answer_that_still_holds_is_not_sent_again(answers: Answers) -> None:
    def reply(asked: Asked) -> bytes:
        same = asked.headers.get("if-none-match") == 'W/"1"' and asked.headers.get("if-modified-since") == "Sat, 01 Nov 2025 10:00:00 GMT"
        validators = {"ETag": 'W/"1"', "Last_Modified": "Sat, 01 Nov 2025 10:00:00 GMT"}
        return answer(304, **validators) if same else answer(200, b'{"id": 1}', **validators)

    with Server(reply) as server, Http(server.url) as http:
        responses = [ask(http, GET, answers) for _ in range(3)]
    assert [response.content for response in responses] == [b'{"id": 1}'] * 3
    assert {response.status for response in responses} == {200}
    assert all(response.request is GET for response in responses)
    assert ["if-none-match" in asked.headers for asked in server.asked] == [False, True, True]


def test_an_answer_that_changed_takes_the_place_of_the_old_one(answers: Answers) -> None:
    versions = iter(["1", "2", "2"])

    def reply(asked: Asked) -> bytes:
        tag = f'"{next(versions)}"'
        return answer(304) if asked.headers.get("if-none-match") == tag else answer(200, tag, ETag=tag)

    with Server(reply) as server, Http(server.url) as http:
        assert [ask(http, GET, answers).content for _ in range(3)] == [b'"1"', b'"2"', b'"2"']


@pytest.mark.parametrize("headers", [{}, {"ETag": '"1"', "Cache_Control": "private, no-store"}])
def test_an_answer_without_validators_or_that_forbids_it_is_not_kept(headers: dict[str, str], answers: Answers) -> None:
    with Server(lambda asked: answer(200, b"x", **headers)) as server, Http(server.url) as http:
        for _ in range(2):
            ask(http, GET, answers)
    assert all("if-none-match" not in asked.headers for asked in server.asked)


@pytest.mark.parametrize(
    "other",
    [
        Request("GET", "/things", params={"page": 2}),
        Request("GET", "/things", params={"page": 1}, headers={"Accept-Language": "de"}),
        Request("POST", "/things", params={"page": 1}, idempotent=True),
    ],
)
def test_another_request_has_another_answer(other: Request, answers: Answers) -> None:
    with Server(lambda asked: answer(200, b"x", ETag='"1"')) as server, Http(server.url) as http:
        ask(http, GET, answers)
        ask(http, other, answers)
    assert "if-none-match" not in server.asked[1].headers


def test_another_account_has_another_answer(answers: Answers) -> None:
    keys = [
        ApiKey(key=SecretStr("key-of-one"), name="key", into="query"),
        Bearer(token=SecretStr("token-of-another")),
        Bearer(token=SecretStr("third")),
    ]
    with Server(lambda asked: answer(200, b"x", ETag='"1"')) as server:
        for key in keys:
            with Http(server.url, auth=key) as http:
                ask(http, GET, answers)
        with Http(server.url, account="another source") as http:
            ask(http, GET, answers)
    assert all("if-none-match" not in asked.headers for asked in server.asked)


# ---- answers on disk ------------------------------------------------------------------------------------------------------


def test_an_answer_outlives_the_process_and_nobody_else_reads_it(tmp_path: Path) -> None:
    folder = tmp_path / "home" / "answers"
    KeptAnswers(folder).keep("a" * 64, KeptAnswer(b"one\ntwo", '"é"', "yesterday"))
    assert KeptAnswers(folder).read("a" * 64) == KeptAnswer(b"one\ntwo", '"é"', "yesterday")
    assert KeptAnswers(folder).read("b" * 64) is None
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert [stat.S_IMODE(file.stat().st_mode) for file in folder.iterdir()] == [0o600]


def test_a_name_is_never_a_path(tmp_path: Path) -> None:
    answers = KeptAnswers(tmp_path / "answers")
    answers.keep("../../evil", KeptAnswer(b"x"))
    assert answers.read("../../evil") == KeptAnswer(b"x")
    assert [path.name for path in tmp_path.iterdir()] == ["answers"]


@pytest.mark.parametrize("damage", [b"", b"\n", b"{}\nx", b"[1]\nx", b"\xff", b"[" * 100_000])
def test_a_damaged_answer_is_no_answer(damage: bytes, tmp_path: Path) -> None:
    answers = KeptAnswers(tmp_path)
    answers.keep("a", KeptAnswer(b"content", '"1"'))
    (file,) = tmp_path.iterdir()
    file.write_bytes(damage)
    assert answers.read("a") is None
    answers.keep("a", KeptAnswer(b"content", '"1"'))
    file.write_bytes(file.read_bytes()[:-1])
    assert answers.read("a") is None


def test_the_longest_unused_answers_go_first(tmp_path: Path) -> None:
    answers = KeptAnswers(tmp_path, room=5_000)
    for number in range(3):
        answers.keep(str(number), KeptAnswer(b"x" * 1_000))
    for number, file in enumerate(sorted(tmp_path.iterdir())):
        file.touch()
        _aged(file, 300 - number)
    assert answers.read("0") is not None, "now it has been used"
    for number in range(3, 6):
        answers.keep(str(number), KeptAnswer(b"x" * 1_000))
    kept = [number for number in range(6) if answers.read(str(number)) is not None]
    assert kept == [0, 3, 4, 5]
    assert sum(file.stat().st_size for file in tmp_path.iterdir()) <= 5_000


def test_what_is_too_large_is_not_kept_and_nor_is_what_it_replaces(tmp_path: Path) -> None:
    answers = KeptAnswers(tmp_path, room=5_000)
    answers.keep("a", KeptAnswer(b"small", '"1"'))
    answers.keep("a", KeptAnswer(b"x" * 2_000, '"2"'))
    assert answers.read("a") is None


def test_what_else_lies_in_the_folder_is_left_alone_and_in_nobodys_way(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "notes.txt").write_bytes(b"x" * 9_000)
    _aged(tmp_path / "folder", 1_000)
    for number in range(9):
        KeptAnswers(tmp_path, room=5_000).keep(str(number), KeptAnswer(b"x" * 1_000))
    assert (tmp_path / "folder" / "notes.txt").exists()
    assert KeptAnswers(tmp_path, room=5_000).read("8") is not None
    assert caplog.text == ""


def test_a_large_answer_where_no_folder_can_be_is_not_kept(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    KeptAnswers(tmp_path / "file" / "answers", room=100).keep("a", KeptAnswer(b"x" * 1_000))


def test_a_disk_that_takes_nothing_costs_a_warning_alone(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "file").write_text(json.dumps(None))
    answers = KeptAnswers(tmp_path / "file" / "answers")
    answers.keep("a", KeptAnswer(b"x"))
    assert answers.read("a") is None
    assert "it will be downloaded again" in caplog.text


def _aged(file: Path, seconds: int) -> None:
    now = file.stat().st_mtime
    os.utime(file, (now - seconds, now - seconds))
