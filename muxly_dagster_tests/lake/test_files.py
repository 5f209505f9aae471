"""Files beside the lake: under the name of their content, once, whole or not at all, in a folder and in a bucket."""

import hashlib
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from muxly_dagster.errors import MuxlyError
from muxly_dagster.lake.files import LakeFiles

CONTENT = b"a content\n" * 1_000_000
SHA256 = hashlib.sha256(CONTENT).hexdigest()


@pytest.fixture(scope="module")
def endpoint() -> Iterator[str]:
    """The address of an S3 server with the bucket `lake`."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    address = f"http://127.0.0.1:{port}"
    command = [sys.executable, "-W", "ignore", "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)]
    server = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    with httpx.Client(base_url=address, transport=httpx.HTTPTransport(retries=8)) as client:
        client.put("/lake").raise_for_status()
    yield address
    server.terminate()
    server.wait()


def in_bucket(endpoint: str, tmp_path: Path) -> LakeFiles:
    options = {
        "AWS_ACCESS_KEY_ID": "lab",
        "AWS_SECRET_ACCESS_KEY": "lab",
        "AWS_REGION": "us-east-1",
        "AWS_ENDPOINT_URL": endpoint,
        "AWS_ALLOW_HTTP": "true",
    }
    return LakeFiles("s3://lake/muxly/", options, tmp_path / "partials")


def in_folder(tmp_path: Path) -> LakeFiles:
    return LakeFiles(str(tmp_path / "lake"), None, tmp_path / "partials")


def downloaded(files: LakeFiles, name: str = "a", content: bytes = CONTENT) -> Path:
    path = files.partial(name)
    path.write_bytes(content)
    return path


def names(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


def test_a_file_is_kept_under_the_name_of_its_content(tmp_path: Path) -> None:
    files = in_folder(tmp_path)
    path = downloaded(files)
    kept = files.keep(path, "text/plain")
    assert (kept.sha256, kept.size, kept.media_type) == (SHA256, len(CONTENT), "text/plain")
    assert kept.url == files.find(SHA256) == f"{tmp_path}/lake/_files/{SHA256[:2]}/{SHA256}"
    assert Path(kept.url).read_bytes() == CONTENT
    assert not path.exists()
    assert names(tmp_path / "lake") == [f"_files/{SHA256[:2]}/{SHA256}"]


def test_the_same_content_is_kept_once(tmp_path: Path) -> None:
    files = in_folder(tmp_path)
    first = files.keep(downloaded(files, "a"), "text/plain")
    inode = os.stat(first.url).st_ino
    assert files.keep(downloaded(files, "b"), "text/csv").url == first.url
    assert os.stat(first.url).st_ino == inode
    assert names(tmp_path / "partials") == []


def test_a_file_that_a_crash_left_short_is_written_anew(tmp_path: Path) -> None:
    files = in_folder(tmp_path)
    kept = files.keep(downloaded(files), "text/plain")
    os.truncate(kept.url, 5)
    assert Path(files.keep(downloaded(files), "text/plain").url).read_bytes() == CONTENT


def test_another_file_system_is_no_obstacle(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def elsewhere(*_: object) -> None:
        raise OSError(18, "Invalid cross-device link")

    files = in_folder(tmp_path)
    path = downloaded(files)
    monkeypatch.setattr(os, "rename", elsewhere)
    kept = files.keep(path, "text/plain")
    assert Path(kept.url).read_bytes() == CONTENT
    assert names(tmp_path) == [f"lake/_files/{SHA256[:2]}/{SHA256}"]


def test_a_file_that_cannot_be_put_there_stays_where_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    files = in_folder(tmp_path)
    path = downloaded(files)
    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(MuxlyError, match=f"{SHA256}: a file cannot be stored \\(No space left"):
        files.keep(path, "text/plain")
    assert path.read_bytes() == CONTENT
    assert names(tmp_path / "lake") == []
    assert files.find(SHA256) is None


def test_a_download_under_way_has_one_place_for_ever(tmp_path: Path) -> None:
    assert in_folder(tmp_path).partial("crm /files/1") == in_folder(tmp_path).partial("crm /files/1")
    assert in_folder(tmp_path).partial("x").parent == in_folder(tmp_path).partial("../../y").parent == tmp_path / "partials"


def test_two_pulls_do_not_write_into_each_others_downloads(tmp_path: Path) -> None:
    files = in_folder(tmp_path)
    one, other = files.apart("crm.files"), files.apart("crm.more_files")
    assert downloaded(one, "x") != downloaded(other, "x")
    assert one.keep(one.partial("x"), "a/b").url == other.keep(other.partial("x"), "a/b").url
    assert files.partial("y").parent == tmp_path / "partials"


def test_downloads_that_nobody_went_on_with_are_forgotten(tmp_path: Path) -> None:
    old, new = downloaded(in_folder(tmp_path), "old", b"o"), downloaded(in_folder(tmp_path), "new", b"n")
    os.utime(old, (0, time.time() - 30 * 86400))
    assert in_folder(tmp_path).partial("new") == new
    assert (old.exists(), new.exists()) == (False, True)


def test_a_bucket_keeps_files_as_a_folder_does(endpoint: str, tmp_path: Path) -> None:
    files = in_bucket(endpoint, tmp_path)
    assert files.find(SHA256) is None
    kept = files.keep(downloaded(files), "text/plain")
    assert kept.url == files.find(SHA256) == f"s3://lake/muxly/_files/{SHA256[:2]}/{SHA256}"
    assert httpx.get(f"{endpoint}/lake/muxly/_files/{SHA256[:2]}/{SHA256}").content == CONTENT
    assert files.keep(downloaded(files, "b"), "text/plain") == kept
    assert files.keep(downloaded(files, "empty", b""), "text/plain").size == 0
    assert names(tmp_path / "partials") == []


def test_a_bucket_that_cannot_be_reached_is_named(tmp_path: Path) -> None:
    with socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))
        options = {"AWS_ENDPOINT_URL": f"http://127.0.0.1:{nobody.getsockname()[1]}", "AWS_ALLOW_HTTP": "true", "max_retries": "0"}
        options |= {"AWS_ACCESS_KEY_ID": "lab", "AWS_SECRET_ACCESS_KEY": "lab-secret", "AWS_REGION": "us-east-1", "retry_timeout": "1s"}
        files = LakeFiles("s3://lake/muxly", options, tmp_path / "partials")
        path = downloaded(files)
        with pytest.raises(MuxlyError, match="s3://lake/muxly") as caught:
            files.keep(path, "text/plain")
    assert "lab-secret" not in str(caught.value)
    assert path.exists()
