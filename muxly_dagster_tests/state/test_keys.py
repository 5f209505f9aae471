"""Write keys: shown once, kept as hashes, revoked for good."""

import sqlalchemy as sa

from muxly_dagster.state import State, tables
from muxly_dagster.state.keys import key_hash


def test_a_key_is_kept_as_a_hash_alone(state: State) -> None:
    key, text = state.keys.create("app", ["signups"], "website", "5/second")
    assert text.startswith(f"mwk_{key.id}_") and len(text) > 40
    assert key.hash == key_hash(text)
    with state.engine.connect() as connection:
        row = connection.execute(sa.select(tables.write_keys)).one()
    assert text not in str(row) and text.split("_", 2)[2] not in str(row)
    assert state.keys.all() == [key] == [state.keys.find(key.id)]


def test_a_key_opens_its_source_and_streams(state: State) -> None:
    whole, _ = state.keys.create("app")
    narrow, _ = state.keys.create("app", ["signups"])
    assert whole.opens("app", "visits") and whole.opens("app", "signups") and not whole.opens("shop", "signups")
    assert narrow.opens("app", "signups") and not narrow.opens("app", "visits") and not narrow.opens("shop", "signups")


def test_a_revoked_key_stays_so_since_then(state: State) -> None:
    key, _ = state.keys.create("app")
    revoked = state.keys.revoke(key.id)
    assert revoked is not None and revoked.revoked_at is not None
    assert state.keys.revoke(key.id) == revoked
    assert state.keys.revoke("nobody") is None and state.keys.find("nobody") is None
    other, _ = state.keys.create("shop")
    assert [each.id for each in state.keys.all("shop")] == [other.id]
    assert [each.id for each in state.keys.all()] == [key.id, other.id]
