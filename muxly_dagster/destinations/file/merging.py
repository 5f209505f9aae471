"""Small files of confirmed changes become larger ones, so that a route with many small deliveries does not leave thousands of files.

Only what was confirmed is merged. Each change is written again about as often as its file doubles in size, not once for every delivery.
A merged file remembers what it was made of, so that it can be taken apart again where a delivery starts over in the middle of it.
"""

import datetime as dt
import itertools
import json
import os
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import BinaryIO

from muxly_dagster.destinations.file.folder import MERGED, Folder, Stretch, sidecar, sync, write_aside
from muxly_dagster.errors import ConfigurationError
from muxly_dagster.writing import joining
from muxly_dagster.writing.formats import Form
from muxly_dagster.writing.rolling import Limits

Part = tuple[int, int, int]
"""A stretch (after, upto) within a merged file, and its rows."""


@dataclass(frozen=True, slots=True)
class Sized:
    """A file, and what counts towards the limits: bytes on the disk, and rows where those are limited."""

    stretch: Stretch
    bytes: int
    rows: int
    written: float


def merge(folder: Folder, confirmed: int, limits: Limits, age: dt.timedelta, form: Form) -> int:
    """Merge the series' files of changes up to `confirmed`. Answers how many files became part of another one. Raises OSError."""
    seconds = age.total_seconds()
    now = time.time() // seconds
    merged = 0
    candidates = [f for f in folder.files if f.upto <= confirmed and f.path.name.endswith(f".{form.extension}")]
    candidates.sort(key=lambda f: (f.path.parent, f.after))
    sized = [_sized(f, limits, form) for f in candidates]
    for (_, window), found in itertools.groupby(sized, key=lambda f: (f.stretch.path.parent, f.written // seconds)):
        for group in groups(list(found), limits, window < now):
            for _, alike in itertools.groupby(group, key=lambda f: joining.columns(f.stretch.path, form)):
                files = [f.stretch for f in alike]
                if len(files) > 1:
                    parts = [part for file in files for part in _parts(file, form)]
                    _replace(folder, files, parts, form, partial(joining.join, [f.path for f in files], form))
                    merged += len(files)
    return merged


def groups(files: Sequence[Sized], limits: Limits, closed: bool) -> list[list[Sized]]:
    """Which of some files that follow each other become one, each group within the limits.

    While the time they belong to goes on, the last ones are merged once they are as large together as the one before them.
    """
    start = 0
    while not closed and start < len(files) and files[start].bytes > sum(f.bytes for f in files[start + 1 :]):
        start += 1
    found: list[list[Sized]] = []
    for file in files[start:]:
        if found and _fits([*found[-1], file], limits):
            found[-1].append(file)
        else:
            found.append([file])
    return [group for group in found if len(group) > 1]


def take_apart(folder: Folder, after: int, form: Form) -> None:
    """Keep of merged files that reach beyond `after` what was confirmed: the stretches up to it. `form` tells how Parquet is compressed.

    Raises ConfigurationError for a merged file that has lost the note of what it was made of, and OSError.
    """
    for file in [f for f in folder.files if f.merged and f.after < after < f.upto]:
        its_form = form.of(file.path.name)
        kept = [part for part in _parts(file, its_form) if part[1] <= after]
        if kept:
            rows = sum(count for _, _, count in kept)
            _replace(folder, [file], kept, its_form, partial(joining.head, file.path, rows, its_form))


def _fits(files: Sequence[Sized], limits: Limits) -> bool:
    too_large = limits.most_bytes is not None and sum(f.bytes for f in files) > limits.most_bytes
    return not too_large and (limits.rows is None or sum(f.rows for f in files) <= limits.rows)


def _sized(file: Stretch, limits: Limits, form: Form) -> Sized:
    found = file.path.stat()
    rows = sum(count for _, _, count in _parts(file, form)) if limits.rows else 0
    return Sized(file, found.st_size, rows, found.st_mtime)


def _parts(file: Stretch, form: Form) -> list[Part]:
    if not file.merged:
        return [(file.after, file.upto, joining.count(file.path, form))]
    note = sidecar(file.path)
    try:
        return [(after, upto, rows) for after, upto, rows in json.loads(note.read_text("utf-8"))]
    except (FileNotFoundError, ValueError):
        raise ConfigurationError(
            f"{file.path.name} is a merged file, but {note.name}, which says of what, is gone",
            do="put the note back; or delete both and deliver everything again with `muxly run NAME --from-start`",
            where=str(file.path.parent),
        ) from None


def _replace(folder: Folder, files: Sequence[Stretch], parts: Sequence[Part], form: Form, write: Callable[[BinaryIO], None]) -> None:
    """Let one file take the place of some that follow each other."""
    after, upto = parts[0][0], parts[-1][1]
    place = files[0].path.parent
    shown = place / f"{folder.series.name(after, upto)}{MERGED}.{form.extension}"
    ready = place / f".{shown.name}.ready"
    newest = max(f.path.stat().st_mtime for f in files)
    with write_aside() as aside:
        with aside.open(shown) as out:
            write(out)
        ((part, _),) = aside.written
        os.utime(part, (newest, newest))  # it stays in its time, and is kept as long as what is newest in it
        _write_note(sidecar(shown), parts)
        part.rename(ready)
    sync(place)
    folder.replace_by(Stretch(ready, after, upto, merged=True))


def _write_note(path: Path, parts: Sequence[Part]) -> None:
    with path.open("w", encoding="utf-8") as out:
        json.dump(list(parts), out)
        out.flush()
        os.fsync(out.fileno())
