"""Sees when the files of a project change: what muxly.yaml says, manifests, and Python."""

import os
import threading
from collections.abc import Collection, Iterator
from pathlib import Path

from watchfiles import Change, watch

from muxly_dagster.project.load import FOLDER
from muxly_dagster.settings import PROJECT_FILES

_ENDINGS = (".yaml", ".yml", ".py")
"""What may be part of a project wherever it lies below the project's folder; JSON and TOML may be data as well."""

_OF_FOLDER = (*_ENDINGS, ".json", ".toml")
_LEFT_OUT = frozenset({"__pycache__", "node_modules", "site-packages"})
_DEEPEST = 6
_MOST_FOLDERS = 2_000
_MILLISECONDS_TOGETHER = 400
_MILLISECONDS_BETWEEN_LOOKS = 5_000  # for folders that are new


def changes(folder: Path, left_out: Collection[Path], stop: threading.Event) -> Iterator[list[Path]]:
    """The files of the project in `folder` that changed, those that changed together at once; ends when `stop` is set.

    `left_out` are folders that are not looked into, such as Muxly's home. Only folders that hold something of the project are watched,
    each by itself: a lake of a million files beside it costs nothing.
    """
    watched = folders(folder, left_out)
    while not stop.is_set():
        for found in watch(
            *watched,
            watch_filter=lambda change, path: _counts(folder, change, Path(path)),
            debounce=_MILLISECONDS_TOGETHER,
            step=50,
            stop_event=stop,
            rust_timeout=_MILLISECONDS_BETWEEN_LOOKS,
            yield_on_timeout=True,
            raise_interrupt=False,
            recursive=False,
            ignore_permission_denied=True,
        ):
            files = {Path(path) for _, path in found if not Path(path).is_dir()}
            there = folders(folder, left_out)
            for new in [each for each in there if each not in watched]:
                files |= {file for file in new.iterdir() if _counts(folder, Change.added, file) and file.is_file()}
            if files:
                yield sorted(files)
            if there != watched:
                watched = there
                break


def folders(folder: Path, left_out: Collection[Path]) -> list[Path]:
    """The folder, and those below it that hold files of the project or may come to: hidden ones and environments are left out."""
    found: list[Path] = []
    for at, names, files in os.walk(folder):
        here = Path(at)
        depth = len(here.relative_to(folder).parts)
        names[:] = sorted(
            name
            for name in names
            if not name.startswith(".")
            and name not in _LEFT_OUT
            and here / name not in left_out
            and not (here / name / "pyvenv.cfg").exists()
        )
        if depth >= _DEEPEST or len(found) >= _MOST_FOLDERS:
            names.clear()
        if depth == 0 or here == folder / FOLDER or any(name.endswith(_ENDINGS) for name in files):
            found.append(here)
    return found


def _counts(folder: Path, change: Change, path: Path) -> bool:
    if path.name.startswith(".") or path.name.endswith("~"):
        return False
    if path.is_dir():
        return change == Change.added
    if path.parent == folder / FOLDER:
        return path.suffix in _OF_FOLDER
    return path.suffix in _ENDINGS or (path.parent == folder and path.name in PROJECT_FILES)
