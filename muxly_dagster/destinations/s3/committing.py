"""How a delivery comes into a bucket: whole to everyone who goes by manifests, and once, however often it is tried.

A store of objects knows no renaming and no transactions, so a delivery is two small objects beside its own:

    _manifests/TABLE/SERIES/~UPTO-AFTER.HASH   first, a note: every key that is about to be written or removed
    _manifests/TABLE/SERIES/UPTO-AFTER.json    last, the manifest: what the delivery holds, with sizes and checksums

Their keys begin with where the stretch ends, so one listing from `after` on shows the manifests that reach beyond it, which are earlier
attempts and are removed, and behind them all notes, since `~` comes after every digit. Whatever lies in the bucket without a manifest is
named by a note, so nothing is left over for good.
"""

import hashlib
import json
import tempfile
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from io import BytesIO
from tempfile import SpooledTemporaryFile
from typing import Any, BinaryIO, cast

from muxly_dagster.destination import Delivery
from muxly_dagster.destinations.s3.objects import CONTENT_TYPES, Objects, TakenError
from muxly_dagster.errors import ConfigurationError, RetryLater
from muxly_dagster.writing.formats import Form
from muxly_dagster.writing.names import Series
from muxly_dagster.writing.record_files import Piece

MANIFESTS = "_manifests"
_IN_MEMORY = 32 << 20
_AT_ONCE = 8
_BLOCK = 1 << 20


@dataclass(frozen=True, slots=True)
class Written:
    """A file that is ready to be stored."""

    key: str
    body: BinaryIO
    rows: int
    size: int
    sha256: str


@dataclass(frozen=True, slots=True)
class Committed:
    """What became of a delivery. `repeated`: it was there already, just the same."""

    manifest: str
    repeated: bool
    removed: int


@contextmanager
def written(pieces: Sequence[Piece], form: Form, delivery: Delivery, folder: str) -> Iterator[list[Written]]:
    """The pieces as files, small ones in memory; gone when the block ends. Raises RetryLater where this machine's disk is full."""
    series = Series(delivery.id, delivery.table_id)
    files: list[Written] = []
    try:
        for piece in pieces:
            body = cast(BinaryIO, SpooledTemporaryFile(max_size=_IN_MEMORY))  # noqa: SIM115
            try:
                form.write(piece.rows, delivery, body)
                files.append(Written(folder + piece.path(series, form.extension), body, len(piece.rows), body.tell(), _sha256(body)))
            except OSError as error:
                with suppress(OSError):  # what could not be written is written once more, in vain
                    body.close()
                reason = error.strerror or str(error)
                do = "free some space where temporary files are kept; the next run goes on from here"
                raise RetryLater(f"a file cannot be prepared: {reason}", do=do, where=tempfile.gettempdir()) from None
        yield files
    finally:
        for file in files:
            file.body.close()


def commit(objects: Objects, files: Sequence[Written], form: Form, delivery: Delivery, manifests: str) -> Committed:
    """Store the files and then the manifest below the prefix `manifests`. What earlier attempts left is removed before.

    Raises RetryLater where another process writes the same stretch with other content, and what `Objects` raises.
    """
    place = f"{manifests}{Series(delivery.id, delivery.table_id)}/"
    stretch = f"{delivery.upto:012d}-{delivery.after:012d}"
    name, manifest = f"{place}{stretch}.json", _manifest(files, form, delivery)
    earlier = objects.names(place, f"{place}{delivery.after:012d}-~")
    if earlier == [name] and objects.read(name) == manifest:
        return Committed(name, repeated=True, removed=0)
    notes = [each for each in earlier if each.startswith(f"{place}~")]
    with ThreadPoolExecutor(_AT_ONCE) as pool:
        noted = _objects_of(objects, notes, pool)
        known = noted | _objects_of(objects, [each for each in earlier if each not in notes], pool)
        # A note of a stretch that lies behind us may only have outlived its delivery.
        confirmed = [f"{place}{note.removeprefix(f'{place}~').partition('.')[0]}.json" for note in notes]
        for key in _objects_of(objects, [each for each in confirmed if each not in earlier], pool):
            known.pop(key, None)
        intent = _json({"muxly": 1, "writes": [file.key for file in files], "removes": sorted(known)})
        note = f"{place}~{stretch}.{hashlib.sha256(intent).hexdigest()[:16]}"
        _put(objects, note, intent)
        # From here on this note names all that the older ones name.
        objects.delete([each for each in earlier if each != note])
        if notes:
            objects.drop_unfinished(set(noted))
        same = {file.key for file in files if known.get(file.key) == file.sha256}
        objects.delete([key for key in sorted(known) if key not in same])
        try:
            for _ in pool.map(lambda file: _store(objects, file, form), files):
                pass
            _put(objects, name, manifest)
        except TakenError as error:
            raise RetryLater(
                f"another process stored other changes as {error.key} in the meantime",
                do="see that no two installations deliver the same route into the same prefix",
                where=objects.url,
            ) from None
        objects.delete([note])
    return Committed(name, repeated=False, removed=len(known) - len(same))


def _store(objects: Objects, file: Written, form: Form) -> None:
    file.body.seek(0)
    objects.put(file.key, file.body, file.size, file.sha256, CONTENT_TYPES[form.format])


def _put(objects: Objects, key: str, content: bytes) -> None:
    objects.put(key, BytesIO(content), len(content), hashlib.sha256(content).hexdigest(), CONTENT_TYPES["json"])


def _objects_of(objects: Objects, names: Sequence[str], pool: ThreadPoolExecutor) -> dict[str, str]:
    """The keys that manifests and notes speak of, with the SHA-256 of their content where a manifest tells it."""
    known: dict[str, str] = {}
    for name, content in zip(names, pool.map(objects.read, names), strict=True):
        if content is None:
            continue
        said = _read(content, f"{objects.url}/{name}")
        for key in [*said.get("writes", ()), *said.get("removes", ())]:
            known.setdefault(key, "")
        known |= {each["key"]: each["sha256"] for each in said.get("objects", ())}
    return known


def _read(content: bytes, where: str) -> dict[str, Any]:
    """A manifest or a note. Going on without knowing what it says would leave changes twice in the bucket."""
    try:
        said = json.loads(content)
    except ValueError:
        said = None
    if not isinstance(said, dict) or said.get("muxly") != 1:
        raise ConfigurationError(
            "this object should be a manifest of Muxly's, but is none", do="see who wrote it, and delete it", where=where
        )
    return said


def _manifest(files: Sequence[Written], form: Form, delivery: Delivery) -> bytes:
    """The same bytes in every repetition: nothing in it says when, or by which run."""
    return _json(
        {
            "muxly": 1,
            "delivery": delivery.id,
            "table": delivery.table,
            "table_id": delivery.table_id,
            "after": delivery.after,
            "upto": delivery.upto,
            "rows": sum(file.rows for file in files),
            "format": form.format,
            "compression": form.compression,
            "records": "record" if form.whole else "data",
            "objects": [{"key": file.key, "rows": file.rows, "bytes": file.size, "sha256": file.sha256} for file in files],
        }
    )


def _json(value: dict[str, Any]) -> bytes:
    return json.dumps(value, ensure_ascii=False, indent=1).encode() + b"\n"


def _sha256(body: BinaryIO) -> str:
    body.seek(0)
    digest = hashlib.sha256()
    while block := body.read(_BLOCK):
        digest.update(block)
    body.seek(0)
    return digest.hexdigest()
