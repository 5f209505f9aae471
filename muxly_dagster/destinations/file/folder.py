"""A table's folder, and the files of one series in it: what is there, what goes, and how files come to be seen whole.

Names that begin with a dot are not for readers. `.NAME.part` is being written; `.NAME.ready` is whole and takes the place of the files
whose changes it holds, which a process that was killed may not have finished; `.NAME.parts` says what a merged file was made of.
"""

import errno
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO, Self

from muxly_dagster.errors import ConfigurationError, MuxlyError, RetryLater
from muxly_dagster.writing.formats import EXTENSION
from muxly_dagster.writing.names import Series, safe

MERGED = "-merged"
"""What stands in the name of a file that holds the changes of several deliveries."""

_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_FORBIDDEN = (errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR, errno.EEXIST, errno.EISDIR, errno.ENAMETOOLONG, errno.ELOOP)


@dataclass(frozen=True, slots=True)
class Stretch:
    """A file of the series that readers see: the changes after one number and up to another."""

    path: Path
    after: int
    upto: int
    merged: bool = False


@dataclass(slots=True)
class Folder:
    """The files of one series below a table's folder."""

    place: Path
    series: Series
    files: list[Stretch]

    @classmethod
    def opened(cls, place: Path, series: Series) -> Self:
        """Look what is there, and finish or drop what a killed process left."""
        folder = cls(place, series, [])
        name = re.compile(rf"(\.?){re.escape(str(series))}-(\d{{12,}})-(\d{{12,}})({MERGED})?\.(?:{EXTENSION})(\.part|\.ready|\.parts)?")
        ready: list[Stretch] = []
        sidecars: list[Path] = []
        for path in _below(place):
            found = name.fullmatch(path.name)
            if found is None or bool(found[1]) != bool(found[5]):
                continue
            stretch = Stretch(path, int(found[2]), int(found[3]), bool(found[4]))
            match found[5]:
                case ".part":
                    path.unlink(missing_ok=True)
                case ".parts":
                    sidecars.append(path)
                case ".ready":
                    ready.append(stretch)
                case _:
                    folder.files.append(stretch)
        for stretch in ready:
            folder.replace_by(stretch)
        for path in {*sidecars} - {sidecar(stretch.path) for stretch in folder.files}:
            path.unlink(missing_ok=True)
        return folder

    def replace_by(self, ready: Stretch) -> None:
        """Let a file that is ready take the place of those that hold the same changes, or some of them.

        The old go first: a reader in between sees fewer changes, and none twice. From the moment it is ready, nothing can be lost.
        """
        beside = [f for f in self.files if f.path.parent == ready.path.parent and ready.after < f.upto and f.after < ready.upto]
        for old in beside:
            old.path.unlink(missing_ok=True)
            if old.merged:
                sidecar(old.path).unlink(missing_ok=True)
        shown = ready.path.with_name(ready.path.name.removeprefix(".").removesuffix(".ready"))
        ready.path.rename(shown)
        sync(shown.parent)
        self.files = [f for f in self.files if f not in beside] + [Stretch(shown, ready.after, ready.upto, ready.merged)]

    def remove_beyond(self, after: int) -> None:
        """Remove files that reach beyond `after`: they were never confirmed, or are to be delivered again."""
        for stretch in self.files:
            if stretch.upto > after:
                self._remove(stretch.path)
        self.files = [stretch for stretch in self.files if stretch.upto <= after]

    def delete_older(self, moment: float) -> int:
        """Delete what was written before a moment (Unix time), replayed records included. Answers how many files."""
        delivery_id, table_id = re.escape(safe(self.series.delivery_id)), re.escape(safe(self.series.table_id))
        name = re.compile(rf"{delivery_id}-(?:[0-9a-f]{{16}}(?:\.\d+)?-)?{table_id}-\d{{12,}}-\d{{12,}}(?:{MERGED})?\.(?:{EXTENSION})")
        old = [path for path in _below(self.place) if name.fullmatch(path.name) and path.stat().st_mtime < moment]
        for path in old:
            self._remove(path)
        return len(old)

    def _remove(self, path: Path) -> None:
        """Remove a file, and folders by value that are left empty."""
        path.unlink(missing_ok=True)
        sidecar(path).unlink(missing_ok=True)
        for parent in path.parents:
            if parent == self.place:
                return
            try:
                parent.rmdir()
            except OSError:
                return


@dataclass(slots=True)
class Aside:
    """Files that are being written, seen by nobody yet."""

    written: list[tuple[Path, Path]] = field(default_factory=list)

    @contextmanager
    def open(self, path: Path) -> Iterator[BinaryIO]:
        """Write what is to become `path`. It is on the disk when the block ends."""
        path.parent.mkdir(parents=True, exist_ok=True)
        part = path.with_name(f".{path.name}.part")
        self.written.append((part, path))
        with part.open("xb") as out:  # two folders may be one where letter case does not count
            yield out
            out.flush()
            os.fsync(out.fileno())

    def show(self) -> list[tuple[Path, int]]:
        """Give all of them their names. Answers them with their sizes."""
        for part, path in self.written:
            part.rename(path)
        for parent in dict.fromkeys(path.parent for _, path in self.written):
            sync(parent)
        return [(path, path.stat().st_size) for _, path in self.written]


@contextmanager
def write_aside() -> Iterator[Aside]:
    """Files to be written; what is not shown when the block ends is removed."""
    aside = Aside()
    try:
        yield aside
    finally:
        for part, _ in aside.written:
            part.unlink(missing_ok=True)


def sidecar(path: Path) -> Path:
    """What says of which stretches a merged file was made, and how many rows each has."""
    return path.with_name(f".{path.name}.parts")


def sync(folder: Path) -> None:
    """Make new names survive a power cut."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _below(place: Path) -> list[Path]:
    """All files in a folder and in those below it."""
    found: list[Path] = []
    waiting = [place]
    while waiting:
        try:
            entries = list(os.scandir(waiting.pop()))
        except FileNotFoundError:
            continue
        for entry in entries:
            if entry.is_dir(follow_symlinks=False):
                waiting.append(Path(entry.path))
            else:
                found.append(Path(entry.path))
    return found


@contextmanager
def explained(folder: Path) -> Iterator[None]:
    """Turn the system's errors into Muxly's."""
    try:
        yield
    except OSError as error:
        raise _as_muxly_error(error, str(folder)) from error


def _as_muxly_error(error: OSError, where: str) -> MuxlyError:
    reason = error.strerror or str(error)
    if error.errno in _FULL:
        return RetryLater(f"the disk is full: {reason}", do="free some space; the next run goes on from here", where=where)
    if error.errno in _FORBIDDEN:
        return ConfigurationError(
            f"the folder cannot be written: {reason}", do="change its permissions, or set another `path`", where=where
        )
    return RetryLater(f"the file could not be written: {reason}", do="check the disk; the next run goes on from here", where=where)
