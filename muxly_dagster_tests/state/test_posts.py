"""What a request brings to the inbox: marks that stay what they are, and ids for events that came without."""

import hashlib
import uuid

import pytest
import xxhash

from muxly_dagster.collecting import Gathered, Lines
from muxly_dagster.state.posts import UNMARKED, Part, Post, new_ids


def part(*ids: str) -> Part:
    return Part.of("app", Gathered("signups", Lines([b"{}"] * len(ids)), list(ids), range(len(ids))))


@pytest.mark.parametrize("ids", [("a",), ("a", "b", "a"), ("é☃", "x" * 255), (), ("", "a", "", "b"), ("", ""), (*"abcdefgh", "")])
def test_a_mark_is_made_of_its_stream_and_its_id(ids: tuple[str, ...]) -> None:
    scope = hashlib.sha256(b"app\0signups").digest()[:6]
    made = part(*ids)
    expected = [scope + xxhash.xxh3_128_digest(id.encode())[:10] if id else UNMARKED for id in ids]
    assert made.marks == (b"".join(expected) if any(ids) else b"")
    assert [id for id, given in zip(made.ids, ids, strict=True) if given] == [id for id in ids if id]
    assert "" not in made.ids and len(set(made.ids)) >= len(set(ids))


def test_marks_that_are_stored_are_found_by_later_versions() -> None:
    mark = bytes.fromhex("e5c4ef0f924fa96faf705af16834e6c6")
    assert part("a").marks == mark and part(*"bcdefghija").marks.endswith(mark)


@pytest.mark.parametrize("count", [0, 1, 4095, 4096, 4097, 10_000])
def test_ids_of_our_making_are_uuids_in_their_order(count: int) -> None:
    ids = new_ids(count)
    assert len(ids) == len(set(ids)) == count and ids == sorted(ids)
    assert all((id.version, id.variant) == (7, uuid.RFC_4122) for id in map(uuid.UUID, ids[:2] + ids[-2:]))


def test_the_size_of_a_post_counts_what_goes_to_quarantine_too() -> None:
    made = part("a", "b")
    before = Post("app", [made]).size
    made.refused = [("x" * 100, "why")]
    assert Post("app", [made]).size == before + 100 and before > 4
