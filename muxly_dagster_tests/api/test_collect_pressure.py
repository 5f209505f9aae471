"""What senders are told while their events cannot be stored: to keep them, and when to come again."""

import asyncio
import contextlib
import datetime as dt
import os
import threading
from collections.abc import Iterator
from pathlib import Path

import httpx
import psycopg
import pytest
import sqlalchemy as sa

from muxly_dagster.api.collecting.tidying import Tidying
from muxly_dagster.api.collecting.writing import Writer
from muxly_dagster.collecting import Gathered
from muxly_dagster.errors import ConfigurationError, RetryLater
from muxly_dagster.state import State
from muxly_dagster.state.posts import Part, Post
from muxly_dagster_tests.api.collector import Collector, collecting
from muxly_dagster_tests.peers.prometheus import until

PROJECT = "sources: {app: {connector: collector, pulls: [signups]}}"
FAR = 1 << 60
WEEK = dt.timedelta(days=7)


@pytest.fixture
def state(tmp_path: Path) -> Iterator[State]:
    found = State.open(f"sqlite:///{tmp_path}/state.db", tmp_path)
    yield found
    found.close()


@contextlib.contextmanager
def writer(state: State, queue: int = 1 << 20) -> Iterator[Writer]:
    found = Writer(state.inbox, Tidying(state.inbox, WEEK), queue)
    try:
        yield found
    finally:
        found.close()


def post(id: str, size: int = 10) -> Post:
    return Post("app", [Part.of("app", Gathered("signups", [b'"' + b"x" * size + b'"'], [id], (0,)))])


def ids(state: State) -> list[str]:
    return [id for parcel in state.inbox.parcels("app", "signups", 0, FAR) for id in parcel.ids]


def posted(server: Collector, id: str = "") -> httpx.Response:
    return httpx.post(f"{server.url}/v1/collect/app/signups", json={"id": id} if id else {}, timeout=60)


# ---- the writer ----------------------------------------------------------------------------------------------------------


def test_requests_that_wait_share_a_transaction(state: State) -> None:
    async def put() -> None:
        with writer(state) as found:
            await asyncio.gather(*(found.put(post(str(number))) for number in range(200)))

    asyncio.run(put())
    assert ids(state) == [str(number) for number in range(200)]
    assert len(state.inbox.parcels("app", "signups", 0, FAR)) < 20


def test_a_request_that_cannot_be_stored_fails_alone(state: State) -> None:
    bad = post("bad")
    bad.parts[0].ids = ["no text \ud800"]

    async def put() -> list[object]:
        with writer(state) as found:
            return await asyncio.gather(*(found.put(each) for each in (post("a"), bad, post("b"))), return_exceptions=True)

    first, second, third = asyncio.run(put())
    assert (first, third) == (None, None) and isinstance(second, UnicodeEncodeError)
    assert ids(state) == ["a", "b"]


def test_a_full_queue_takes_no_more(state: State) -> None:
    async def put() -> None:
        with writer(state, queue=1000) as found:
            with state.inbox._turn:  # nothing can be stored meanwhile
                waiting = [asyncio.create_task(found.put(post(name, 400))) for name in ("a", "b", "c")]
                done, _ = await asyncio.wait(waiting, return_when=asyncio.FIRST_EXCEPTION)
                [refused] = done
                with pytest.raises(RetryLater, match="more events come in") as error:
                    await refused
                assert error.value.after
            await asyncio.gather(*(each for each in waiting if each is not refused))
            await found.put(post("large", 5000))  # larger than the queue, but alone

    asyncio.run(put())
    assert ids(state) == ["a", "b", "large"]


def test_a_writer_stores_what_waits_before_it_ends_and_takes_nothing_then(state: State) -> None:
    async def put() -> None:
        found = Writer(state.inbox, Tidying(state.inbox, WEEK))
        waiting = [asyncio.create_task(found.put(post(str(number)))) for number in range(20)]
        await asyncio.sleep(0)
        await asyncio.to_thread(found.close)
        await asyncio.gather(*waiting)
        with pytest.raises(RetryLater, match="closing"):
            await found.put(post("late"))

    asyncio.run(put())
    assert len(ids(state)) == 20


# ---- the whole -----------------------------------------------------------------------------------------------------------


def test_a_full_inbox_takes_events_again_once_somebody_has_pulled(tmp_path: Path) -> None:
    with collecting(tmp_path, {"MUXLY_INBOX_BYTES": "1kB"}, PROJECT, guarded=False) as server:
        until(lambda: posted(server).status_code == 503, "a full inbox")
        answer = posted(server)
        assert answer.status_code == 503 and int(answer.headers["retry-after"]) >= 1
        assert "MUXLY_INBOX_BYTES" in answer.json()["do"]
        server.service.runtime.run("app.signups")
        until(lambda: posted(server).status_code == 202, "room")


def test_a_full_disk_is_told_and_what_was_acknowledged_is_there(tmp_path: Path) -> None:
    with collecting(tmp_path, project=PROJECT, guarded=False) as server:
        assert posted(server, "before").status_code == 202
        engine = server.service.state.inbox_engine
        # A limit on the file's pages, in every connection, stands for a disk that is full.
        limit = [12]
        sa.event.listen(engine, "checkout", lambda connection, *_: connection.execute(f"pragma max_page_count={limit[0]}"))
        body = b'{"x":"%b"}' % os.urandom(450_000).hex().encode()  # which no compression makes small
        answer = httpx.post(f"{server.url}/v1/collect/app/signups", content=body)
        assert answer.status_code == 503 and int(answer.headers["retry-after"]) >= 1
        assert "full" in answer.json()["detail"] and "free some space" in answer.json()["do"]
        assert server.ids("app", "signups") == ["before"]
        limit[0] = 1 << 30
        assert httpx.post(f"{server.url}/v1/collect/app/signups", content=body).status_code == 202


def test_a_database_that_is_away_is_told_and_found_again(tmp_path: Path, postgres: str) -> None:
    name = postgres.partition("?")[0].rpartition("/")[2]
    with collecting(tmp_path, {"MUXLY_DATABASE_URL": postgres}, PROJECT, guarded=False) as server:
        assert posted(server, "before").status_code == 202
        with psycopg.connect(postgres.replace(f"/{name}", "/postgres", 1), autocommit=True) as admin:
            admin.execute(f'alter database "{name}" allow_connections false')
            admin.execute("select pg_terminate_backend(pid) from pg_stat_activity where datname = %s", [name])
            answers = [posted(server, "during") for _ in range(3)]
            admin.execute(f'alter database "{name}" allow_connections true')
        for answer in answers:
            assert answer.status_code == 503 and int(answer.headers["retry-after"]) >= 1
            assert "postgresql://" not in answer.text
        until(lambda: posted(server, "during").status_code == 202, "the database")
        assert server.ids("app", "signups") == ["before", "during"]


def test_senders_that_leave_hold_nothing_up(tmp_path: Path) -> None:
    with collecting(tmp_path, project=PROJECT, guarded=False) as server:
        with server.service.state.inbox._turn:
            leaving = [threading.Thread(target=lambda: _leave(server)) for _ in range(5)]
            for each in leaving:
                each.start()
            for each in leaving:
                each.join()
        assert posted(server, "after").status_code == 202
        until(lambda: server.service.collecting.writer._queued == 0, "an empty queue")


def _leave(server: Collector) -> None:
    with contextlib.suppress(httpx.TimeoutException):
        httpx.post(f"{server.url}/v1/collect/app/signups", json={}, timeout=0.2)


def test_what_is_said_wrongly_in_the_environment_is_said_back(tmp_path: Path) -> None:
    for name, text in (("MUXLY_INBOX_BYTES", "much"), ("MUXLY_COLLECT_REMEMBER", "for ever"), ("MUXLY_COLLECT_BODY", "0")):
        with pytest.raises(ConfigurationError, match=name), collecting(tmp_path / name, {name: text}, PROJECT, guarded=False):
            pass
