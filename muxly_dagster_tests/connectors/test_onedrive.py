"""OneDrive keeps a connector's promises, reads several drives and content from elsewhere, and moves files both ways."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from muxly_dagster.errors import SourceError
from muxly_dagster.lake import Lake
from muxly_dagster.testing.connectors import ConnectorContract, Pulled
from muxly_dagster_tests.peers.onedrive import OneDrive


@pytest.fixture
def account() -> Iterator[OneDrive]:
    with OneDrive() as provider:
        yield provider


class TestOneDrive(ConnectorContract):
    expires = True
    drifts = False  # the fields are named, to leave out addresses that anybody may download from

    @pytest.fixture
    def provider(self, account: OneDrive) -> OneDrive:
        return account


def trusted(account: OneDrive, folder: Path) -> OneDrive:
    """The account with content from a host that the manifest lists."""
    account.manifest = folder / "onedrive.yaml"
    text = OneDrive.manifest.read_text("utf-8")
    account.manifest.write_text(text.replace("*.sharepoint.com", f"127.0.0.1:{account.store.port}"))
    return account


def rows(place: Pulled) -> list[dict[str, Any]]:
    table = Lake(str(place.folder / "lake")).table(place.name)
    return sorted(table.current().to_pylist(), key=lambda row: (str(row.get("drive_id")), row["id"])) if table else []


def test_fields_are_named_so_that_no_download_address_comes_along(account: OneDrive, tmp_path: Path) -> None:
    account.write("a.txt", b"x", item="A")
    place = Pulled(account, tmp_path)
    place.run()
    (row,) = rows(place)
    assert row["lastModifiedDateTime"].isoformat() == "2026-01-02T03:04:05.500000+00:00"
    query = dict(account.asked[0].query)
    assert "downloadUrl" not in query["$select"]
    assert {"id", "deleted", "file", "parentReference"} <= set(query["$select"].split(","))
    assert query["$top"] == "200"


def test_the_next_pull_follows_the_link_that_the_last_one_was_given(account: OneDrive, tmp_path: Path) -> None:
    account.put(1, 2, 3, text="x")
    place = Pulled(account, tmp_path)
    place.run()
    before = len(account.asked)
    account.remove("I!3")
    place.run()
    (asked,) = account.asked[before:]
    assert asked.target.startswith("/v1.0/me/drive/root/delta?token=C:1:3:0")
    assert set(place.texts()) == {1, 2}


def test_each_drive_keeps_its_own_place(account: OneDrive, tmp_path: Path) -> None:
    account.write("a", b"1", item="A", drive="b!x")
    account.write("a", b"1", item="A", drive="b!y")
    account.pull = {"stream": "drive_items"}
    place = Pulled(account, tmp_path)
    connector = account.connector(drives=["b!x", "b!y"])
    place.run(connector)
    assert [(row["drive_id"], row["id"]) for row in rows(place)] == [("b!x", "A"), ("b!y", "A")]
    account.remove("A", drive="b!y")
    account.write("b", b"1", item="B", drive="b!x")
    place.run(connector)
    assert [(row["drive_id"], row["id"]) for row in rows(place)] == [("b!x", "A"), ("b!x", "B")]


def test_content_comes_from_a_host_that_is_listed_without_credentials(account: OneDrive, tmp_path: Path) -> None:
    trusted(account, tmp_path).write("a.txt", b"first", item="A")
    account.write("folder", None, item="B")
    place = Pulled(account, tmp_path)
    connector = account.connector(files=True)  # keeps its files as long as it lives
    place.run(connector)
    file, folder = rows(place)
    assert Path(file["content_url"]).read_bytes() == b"first"
    assert (file["content_size"], file["content_media_type"], folder["content_url"]) == (5, "text/plain", None)
    assert [asked.headers.get("authorization") for asked in account.store.asked] == [None]


def test_content_from_any_other_host_is_refused(account: OneDrive, tmp_path: Path) -> None:
    account.manifest = tmp_path / "onedrive.yaml"
    account.manifest.write_text(OneDrive.manifest.read_text("utf-8"))
    account.write("a.txt", b"first", item="A")
    with pytest.raises(SourceError, match="redirects to a place"):
        account.connector().act("download", {"id": "A"})
    assert account.store.asked == []


def test_an_access_token_is_renewed_on_the_way(tmp_path: Path) -> None:
    with OneDrive(refreshing=True) as provider:
        provider.put(1, 2, 3, text="x")
        provider.fail_once(401)
        place = Pulled(provider, tmp_path)
        place.run()
        assert place.texts() == dict.fromkeys((1, 2, 3), "x")


def test_the_account_and_its_drives(account: OneDrive) -> None:
    connector = account.connector()
    assert connector.metadata().account == "me@shop.example"
    batches = list(connector.pull(connector.Pull(stream="drives"), None, None))
    assert [name for batch in batches for name in batch.rows["id"].to_pylist()] == ["me"]


# ---- actions ---------------------------------------------------------------------------------------------------------


def test_a_file_goes_up_and_comes_down(account: OneDrive, tmp_path: Path) -> None:
    (tmp_path / "a.bin").write_bytes(b"\0\xff")
    connector = trusted(account, tmp_path).connector()
    found = connector.act("upload", {"file": str(tmp_path / "a.bin"), "name": "Jüni 1.bin"})
    assert (found["name"], account.contents[found["id"]]) == ("Jüni 1.bin", b"\0\xff")
    upload = account.asked[-1]
    assert upload.target.endswith("/items/root:/J%C3%BCni%201.bin:/content?%40microsoft.graph.conflictBehavior=replace")
    account.contents["A"] = b"down"
    assert Path(connector.act("download", {"id": "A"})["url"]).read_bytes() == b"down"


def test_folders_are_made_and_deleted(account: OneDrive) -> None:
    connector = account.connector()
    made = connector.act("create_folder", {"name": "New"})
    assert made["folder"] == {"childCount": 0}
    assert connector.act("delete", {"id": made["id"]}) is None
    assert account.drives["me"] == {}
