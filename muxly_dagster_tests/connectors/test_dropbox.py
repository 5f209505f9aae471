"""Dropbox keeps a connector's promises, hears of whole folders that are deleted, and moves files both ways."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from muxly_dagster.connector import Connector
from muxly_dagster.errors import SourceError
from muxly_dagster.lake import Lake
from muxly_dagster.testing.connectors import ConnectorContract, Pulled
from muxly_dagster_tests.peers.dropbox import Dropbox


@pytest.fixture
def account() -> Iterator[Dropbox]:
    with Dropbox() as provider:
        yield provider


class TestDropbox(ConnectorContract):
    expires = True

    @pytest.fixture
    def provider(self, account: Dropbox) -> Dropbox:
        return account


@pytest.fixture
def whole(account: Dropbox, tmp_path: Path) -> Dropbox:
    """The account with content at its own address."""
    text = Dropbox.manifest.read_text("utf-8").replace("https://content.dropboxapi.com", account.url)
    account.manifest = tmp_path / "dropbox.yaml"
    account.manifest.write_text(text.replace("content.dropboxapi.com", "127.0.0.1"))
    return account


def rows(place: Pulled) -> list[dict[str, Any]]:
    table = Lake(str(place.folder / "lake")).table(place.name)
    return sorted(table.current().to_pylist(), key=lambda row: str(row["path_lower"])) if table else []


def paths(place: Pulled, connector: Connector | None = None) -> list[str]:
    place.run(connector)
    return [row["path_lower"] for row in rows(place)]


def test_a_deleted_folder_takes_everything_below_it_along(account: Dropbox, tmp_path: Path) -> None:
    account.make_folder("/Reports")
    account.make_folder("/Reports 2")
    for path in ("/Reports/a.txt", "/Reports/deep/b.txt", "/Reports 2/c.txt", "/reports.txt"):
        account.write(path, b"x")
    place = Pulled(account, tmp_path)
    assert len(paths(place)) == 6
    account.remove("/Reports")
    assert paths(place) == ["/reports 2", "/reports 2/c.txt", "/reports.txt"]
    account.write("/Reports/a.txt", b"back")
    assert "/reports/a.txt" in paths(place)


def test_a_file_in_place_of_a_folder_leaves_nothing_below_it(account: Dropbox, tmp_path: Path) -> None:
    for path in ("/a/x.txt", "/a/b/y.txt", "/a0/z.txt"):
        account.write(path, b"1")
    place = Pulled(account, tmp_path)
    paths(place)
    account.write("/a/short-lived.txt", b"1")
    account.replace("/a", b"now a file")
    assert paths(place) == ["/a", "/a0/z.txt"]
    account.remove("/a")
    account.write("/a/x.txt", b"2")
    assert paths(place) == ["/a/x.txt", "/a0/z.txt"]


def test_what_is_deleted_and_made_again_between_two_pulls_is_there(account: Dropbox, tmp_path: Path) -> None:
    account.write("/a/x.txt", b"1")
    account.write("/a/y.txt", b"1")
    place = Pulled(account, tmp_path)
    assert paths(place) == ["/a/x.txt", "/a/y.txt"]
    account.remove("/a")
    account.write("/a/x.txt", b"2")
    assert paths(place) == ["/a/x.txt"]


def test_one_folder_can_be_read_alone(account: Dropbox, tmp_path: Path) -> None:
    account.write("/a/x.txt", b"1")
    account.write("/b/y.txt", b"1")
    assert paths(Pulled(account, tmp_path), account.connector(folder="/a")) == ["/a/x.txt"]


def test_shared_links_are_paged(account: Dropbox) -> None:
    connector = account.connector()
    batches = list(connector.pull(connector.Pull(stream="shared_links"), None, None))
    assert [url for batch in batches for url in batch.rows["url"].to_pylist()] == [
        "https://www.dropbox.com/s/1",
        "https://www.dropbox.com/s/2",
    ]


def test_content_is_stored_once_for_each_version(whole: Dropbox, tmp_path: Path) -> None:
    whole.make_folder("/a")
    whole.write("/a/Ünï.txt", b"first")
    place = Pulled(whole, tmp_path)
    connector = whole.connector(files=True)
    assert paths(place, connector) == ["/a", "/a/ünï.txt"]
    folder, file = rows(place)
    assert folder["content_url"] is None
    assert Path(file["content_url"]).read_bytes() == b"first"
    whole.write("/a/Ünï.txt", b"second!")
    place.run(connector)
    file = next(row for row in rows(place) if row["content_url"])
    assert Path(file["content_url"]).read_bytes() == b"second!"
    assert file["content_size"] == 7


def test_a_document_that_can_only_be_exported_has_no_content(whole: Dropbox, tmp_path: Path) -> None:
    whole.write("/Plan.gdoc", b"")
    whole.entries["/plan.gdoc"]["is_downloadable"] = False
    place = Pulled(whole, tmp_path)
    assert paths(place, whole.connector(files=True)) == ["/plan.gdoc"]
    assert not [asked for asked in whole.asked if asked.path.endswith("/download")]


def test_without_files_no_content_is_asked_for(whole: Dropbox, tmp_path: Path) -> None:
    whole.write("/a.txt", b"first")
    Pulled(whole, tmp_path).run()
    assert not [asked for asked in whole.asked if asked.path.endswith("/download")]


def test_an_access_token_is_renewed_on_the_way(tmp_path: Path) -> None:
    with Dropbox(refreshing=True) as provider:
        provider.put(1, 2, 3, text="x")
        provider.fail_once(401)
        place = Pulled(provider, tmp_path)
        place.run()
        assert place.texts() == dict.fromkeys((1, 2, 3), "x")


# ---- actions ---------------------------------------------------------------------------------------------------------


def test_a_file_goes_up_and_comes_down(whole: Dropbox, tmp_path: Path) -> None:
    (tmp_path / "june.pdf").write_bytes(b"\0pdf")
    connector = whole.connector()
    found = connector.act("upload", {"file": str(tmp_path / "june.pdf"), "path": "/Berichte/Jüni.pdf"})
    assert (found["name"], whole.contents["/berichte/jüni.pdf"]) == ("Jüni.pdf", b"\0pdf")
    kept = connector.act("download", {"path": "/Berichte/Jüni.pdf"})
    assert Path(kept["url"]).read_bytes() == b"\0pdf"
    with pytest.raises(SourceError, match="not_found"):
        connector.act("download", {"path": "/nowhere"})


def test_folders_are_made_and_deleted(account: Dropbox) -> None:
    connector = account.connector()
    assert connector.act("create_folder", {"path": "/New"})["path_lower"] == "/new"
    assert connector.act("delete", {"path": "/New"})["name"] == "New"
    assert account.entries == {}
