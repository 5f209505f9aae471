"""Files that records speak of, kept beside the lake's tables under the name of their content."""

import hashlib
import os
import shutil
import time
import uuid
from contextlib import suppress
from pathlib import Path
from typing import Any

from muxly_dagster.errors import MuxlyError
from muxly_dagster.services import StoredFile

FOLDER = "_files"
_PIECE = 2**20
_FORGOTTEN = 14 * 86400


class LakeFiles:
    """Keeps files under `_files/ab/SHA256` of a folder or bucket URL; `options` go to the object store as the lake's do.

    The same content is kept once, and nothing is ever removed: a version of a record that is still in the lake may speak of it.
    `partials` is a folder on this machine for downloads under way.
    """

    def __init__(self, url: str, options: dict[str, str] | None, partials: Path) -> None:
        self._url, self._options, self._partials = url.rstrip("/"), options, partials
        self._looked = False
        self._root = None if "://" in url and not url.startswith("file://") else Path(self._url.removeprefix("file://"))

    def partial(self, name: str) -> Path:
        """A path for a download under way: the same one for the same name, also for a later run."""
        try:
            self._partials.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._forget_old()
        except OSError as error:
            raise _unwritable(str(self._partials), error) from error
        return self._partials / f"{hashlib.sha256(name.encode()).hexdigest()}.partial"

    def apart(self, name: str) -> "LakeFiles":
        """The same files for one pull, whose downloads under way nobody else touches: two that run at a time may want the same file."""
        return LakeFiles(self._url, self._options, self._partials / name)

    def _forget_old(self) -> None:
        """Downloads that nobody went on with for long: once for this object, since a pull asks for many paths."""
        if self._looked:
            return
        self._looked = True
        for path in self._partials.iterdir():
            with suppress(FileNotFoundError):  # by another run
                if path.is_file() and time.time() - path.stat().st_mtime > _FORGOTTEN:
                    path.unlink()

    def keep(self, path: Path, media_type: str) -> StoredFile:
        """Move a complete file to where files are kept: it is there as a whole or not at all. Raises MuxlyError where it cannot be."""
        with path.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
        size = path.stat().st_size
        url = f"{self._url}/{_name(digest)}"
        try:
            if self._size(digest) != size:
                if self._root is not None:
                    _move(path, self._root / _name(digest))
                else:
                    self._upload(path, _name(digest))
            path.unlink(missing_ok=True)
        except OSError as error:
            raise _unwritable(url, error) from error
        return StoredFile(url, digest, size, media_type)

    def find(self, sha256: str) -> str | None:
        """The address of the file with this content; None where it is not kept."""
        try:
            return f"{self._url}/{_name(sha256)}" if self._size(sha256) is not None else None
        except OSError as error:
            do = "check the lake's address and the permissions there"
            raise MuxlyError(f"the lake's files cannot be read ({error})", do=do, where=self._url) from error

    def probe(self) -> None:
        """Write a small file, read its size and delete it. Raises MuxlyError where that cannot be done."""
        name = f"{FOLDER}/probe-{uuid.uuid4().hex}"
        try:
            if self._root is not None:
                path = self._root / name
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(b"muxly")
                size: int | None = path.stat().st_size
                path.unlink()
            else:
                store = self._store()
                stream = store.open_output_stream(name)
                stream.write(b"muxly")
                stream.close()
                size = store.get_file_info([name])[0].size
                store.delete_file(name)
        except Exception as error:  # of the object store's own kinds
            what = (getattr(error, "strerror", None) or str(error) or type(error).__name__).splitlines()[0]
            do = "check the lake's address (MUXLY_LAKE_URL), the permissions there and the free space"
            raise MuxlyError(f"the lake cannot be written: {what}", do=do, where=self._url) from None
        if size != len(b"muxly"):
            raise MuxlyError("the lake does not keep what is written", do="check what MUXLY_LAKE_URL names", where=self._url)

    def _size(self, sha256: str) -> int | None:
        name = _name(sha256)
        if self._root is not None:
            path = self._root / name
            return path.stat().st_size if path.is_file() else None
        info = self._store().get_file_info([name])[0]
        size: int | None = info.size
        return size

    def _upload(self, path: Path, name: str) -> None:
        """In parts; the object appears with the last one."""
        stream = self._store().open_output_stream(name)
        with path.open("rb") as file:
            while piece := file.read(_PIECE):
                stream.write(piece)
        stream.close()

    def _store(self) -> Any:
        # The store that the tables themselves are kept in, with the same credentials and options. Its public face
        # (deltalake.fs) wraps streams so that they take no bytes (delta-rs 1.6), hence the class below it.
        from deltalake._internal import DeltaFileSystemHandler

        return DeltaFileSystemHandler(self._url, self._options)


def _name(sha256: str) -> str:
    return f"{FOLDER}/{sha256[:2]}/{sha256}"


def _move(path: Path, target: Path) -> None:
    """Renamed where that is possible, else copied beside the target first; on the disk before it has its name."""
    target.parent.mkdir(parents=True, exist_ok=True)
    new = target.with_name(f"{uuid.uuid4().hex}.new")
    try:
        try:
            os.rename(path, new)
        except OSError:  # another file system
            shutil.copyfile(path, new)
        for place in (new, target.parent):
            descriptor = os.open(place, os.O_RDONLY)
            try:
                os.fsync(descriptor)
            finally:
                os.close(descriptor)
        os.replace(new, target)
    except BaseException:
        if not path.exists() and new.exists():
            os.rename(new, path)
        new.unlink(missing_ok=True)
        raise


def _unwritable(where: str, error: OSError) -> MuxlyError:
    what = error.strerror or str(error)
    return MuxlyError(f"a file cannot be stored ({what})", do="make room there, or check the permissions, and run it again", where=where)
