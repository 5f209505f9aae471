"""`muxly keys`: made and shown once, listed, revoked."""

from pathlib import Path

import pytest

from muxly_dagster_tests.cli.command import MuxlyHere

PROJECT = "sources: {app: {connector: collector, pulls: [signups, visits]}}"


@pytest.fixture
def muxly(tmp_path: Path) -> MuxlyHere:
    (tmp_path / "muxly.yaml").write_text(PROJECT)
    return MuxlyHere(tmp_path)


def test_a_key_is_shown_once_listed_and_revoked(muxly: MuxlyHere) -> None:
    assert "no write keys" in muxly("keys", "list").err
    done = muxly("keys", "create", "app", "--stream", "signups", "--name", "website", "--rate", "100/second")
    text = done.out.strip()
    assert done.code == 0 and text.startswith("mwk_") and "not shown again" in done.err
    [key] = muxly("keys", "list", "--json").json
    assert (key["source"], key["streams"], key["name"], key["rate"]) == ("app", ["signups"], "website", "100/second")
    shown = muxly("keys", "list")
    assert "website" in shown.out and text.split("_", 2)[2] not in shown.all
    assert "revoked" in muxly("keys", "revoke", key["id"]).err
    assert muxly("keys", "list", "--json").json == []
    [revoked] = muxly("keys", "list", "app", "--all", "--json").json
    assert revoked["revoked_at"] and "revoked" in muxly("keys", "list", "--all").out
    made = muxly("keys", "create", "app", "--json").json
    assert made["key"].startswith(f"mwk_{made['id']}_") and made["streams"] == []


@pytest.mark.parametrize(
    ("said", "told"),
    [
        (("create", "ap"), "did you mean app?"),
        (("create", "app", "--stream", "singups"), "did you mean signups?"),
        (("create", "app", "--rate", "fast"), "100/second"),
        (("revoke", "nobody"), "muxly keys list"),
    ],
)
def test_what_cannot_be_says_what_to_do(muxly: MuxlyHere, said: tuple[str, ...], told: str) -> None:
    done = muxly("keys", *said)
    assert done.code == 2 and told in done.err
