"""Disks that are full, and a state that is damaged or lost."""

import random
import resource
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from deltalake import write_deltalake

from muxly_dagster.errors import ConfigurationError, MuxlyError, RetryLater
from muxly_dagster.lake import writer
from muxly_dagster_tests.bad_input.shop import PULL, TARGET, Api, Shop, clear, things

Open = Callable[..., Shop]


@contextmanager
def full_disk(largest_file: int) -> Iterator[None]:
    """No file may grow beyond so many bytes: to a program that writes, this is a full disk."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (largest_file, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def noise(*numbers: int) -> list[dict[str, Any]]:
    """Records that cannot be compressed to less than a kilobyte."""
    return [{"id": f"t{n:04}", "amount": n, "noise": random.Random(n).randbytes(1_000).hex()} for n in numbers]


def test_a_disk_that_is_full_for_the_lake(shop: Shop, api: Api) -> None:
    shop.sync()
    api.pages.append(noise(*range(12, 2_000)))
    with full_disk(1_000_000):
        error = shop.fails(MuxlyError)
    assert "shop.things cannot be stored" in error.what
    assert "free some space" in error.do
    assert shop.run(TARGET).read == 0
    assert shop.is_complete()


def test_a_disk_that_is_full_just_after_the_commit(shop: Shop, api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    """Delta writes its own checkpoint after a commit: the records are in the lake although the commit seems to have failed."""
    shop.sync()
    api.pages.append(things(12, 13))

    def too_late(*arguments: Any, **options: Any) -> None:
        write_deltalake(*arguments, **options)
        raise OSError("No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(writer, "write_deltalake", too_late)
        assert "free some space" in shop.fails(MuxlyError).do
    assert shop.table().changes(0, 99)["_muxly_seq"].to_pylist() == list(range(1, 15))
    assert shop.is_complete()


def test_a_disk_that_is_full_before_the_first_record(shop: Shop, api: Api) -> None:
    api.pages = [noise(*range(2_000))]
    shop.open().state.close()
    with full_disk(1_000_000):
        assert "free some space" in shop.fails(MuxlyError).do
    assert shop.is_complete()


def test_a_disk_that_is_full_for_the_state(shop: Shop, api: Api) -> None:
    with shop.open() as runtime:
        runtime.run(PULL)
        api.pages.append(things(12))
        with full_disk(4_096), pytest.raises(RetryLater) as caught:
            runtime.run(PULL)
    assert "free some space" in clear(caught.value).do
    assert "state" in caught.value.what
    assert shop.is_complete()


def test_a_disk_that_is_full_for_the_ledger(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    """The rows are in the destination when the ledger cannot be written: they must not go there again."""
    shop.run(PULL)
    shop.run(TARGET)
    shop.api.pages.append(things(12))
    shop.run(PULL)
    with shop.open() as runtime:
        record = runtime.state.ledger.record

        def on_a_full_disk(*arguments: Any) -> None:
            with full_disk(4_096):
                record(*arguments)

        monkeypatch.setattr(runtime.state.ledger, "record", on_a_full_disk)
        with pytest.raises(RetryLater) as caught:
            runtime.run(TARGET)
    assert "free some space" in clear(caught.value).do
    assert shop.rows() == shop.api.ids
    assert shop.is_complete()


def test_a_disk_that_is_full_for_the_destination(shop: Shop, api: Api) -> None:
    shop.sync()
    api.pages.append(noise(*range(12, 2_000)))
    shop.run(PULL)
    with full_disk(1_000_000):
        error = shop.fails(RetryLater, TARGET)
    assert "free some space" in error.do
    assert shop.is_complete()


def test_a_home_that_is_no_folder(shop: Shop) -> None:
    (shop.folder / ".muxly").write_text("")
    with pytest.raises(ConfigurationError) as caught:
        shop.run(PULL)
    assert "set MUXLY_HOME" in str(clear(caught.value))


def test_a_state_database_that_is_none(shop: Shop) -> None:
    shop.sync()
    state = shop.folder / ".muxly" / "state.db"
    saved = state.read_bytes()
    state.write_bytes(b"dear diary, " * 1_000)
    with pytest.raises(ConfigurationError) as caught:
        shop.run(PULL)
    assert "put back a copy" in str(clear(caught.value))
    state.write_bytes(saved)
    assert shop.is_complete()


def test_a_state_database_that_is_lost_repeats_nothing(shop: Shop) -> None:
    shop.sync()
    lose_the_state(shop)
    assert shop.is_complete()


def test_a_cursor_that_is_lost_does_not_double_records_without_a_key(open_shop: Open, api: Api) -> None:
    query = {"path": "/things", "query": {"since": "${cursor}"}}
    shop = open_shop(stream={"key": [], "request": query, "sync": {"kind": "cursor", "field": "amount"}})
    shop.sync()
    state = shop.folder / ".muxly" / "state.db"
    saved = state.read_bytes()
    lose_the_state(shop)
    error = shop.fails(MuxlyError)
    assert "its records have no key to tell them by" in error.what
    assert "restore the state database" in error.do
    assert shop.run(TARGET).read == 12
    assert shop.rows() == api.ids
    state.write_bytes(saved)
    api.pages = [things(12)]
    shop.sync()
    assert shop.rows() == [f"t{n:04}" for n in range(13)]


def lose_the_state(shop: Shop) -> None:
    """Delete its files."""
    for file in (shop.folder / ".muxly").glob("state.db*"):
        file.unlink()
