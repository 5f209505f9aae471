"""Files: the one that belongs to a record, downloaded beside it, and answers that are a file as a whole."""

import hashlib
import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from email.message import Message
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import orjson
import pyarrow as pa

from muxly_dagster.decoding import parse_path
from muxly_dagster.errors import ConfigurationError, SourceError
from muxly_dagster.http import Download, Downloaded, FileTooLarge, Http, Judge, Request, Response
from muxly_dagster.manifest.asking.kept import validators, with_validators
from muxly_dagster.manifest.asking.requests import build_request
from muxly_dagster.manifest.language.conditions import parse_condition
from muxly_dagster.manifest.language.expressions import ABSENT, Context, expressions, render, text_of
from muxly_dagster.manifest.schema import BinaryResponse, FileSpec
from muxly_dagster.records import is_json, to_json
from muxly_dagster.services import KeptAnswer, Services, StoredFile

_log = logging.getLogger("muxly.manifest")

_AT_ONCE = 4
_GONE = frozenset({404, 410})
_UNKNOWN = "application/octet-stream"
_COLUMNS = (("url", pa.string()), ("sha256", pa.string()), ("size", pa.int64()), ("media_type", pa.string()), ("skipped", pa.string()))


@dataclass(frozen=True)
class _Wanted:
    """A record's file: its request, a name that only this file of this record has, and what the record says of it."""

    row: int
    request: Request
    name: str
    version: str
    media_type: str


@dataclass(frozen=True)
class _Found:
    """What became of it: the file, or why there is none."""

    file: StoredFile | None
    skipped: str = ""


def attach_files(
    http: Http,
    spec: FileSpec,
    context: Context,
    rows: pa.Table,
    services: Services,
    judge: Judge | None = None,
    key: Sequence[str] = (),
    *,
    in_flight: int = _AT_ONCE,
) -> pa.Table:
    """The rows with the columns `NAME_url`, `_sha256`, `_size`, `_media_type` and `_skipped`: each row's file is downloaded.

    A row whose file is too large, no longer there (404, 410), or skipped by the manifest's `errors`, stays without, and `NAME_skipped`
    says why. `key` are the columns that tell the records apart: what was read before is known by them, and is not
    downloaded again while its version (or else its ETag) is the same. Raises what `Http.download` raises, ConfigurationError.
    """
    if not _is_on(spec, context):
        return rows
    taken = [name for name, _ in _fields(spec) if name in rows.column_names]
    if taken:
        do = "give the file another `name`, such as `attachment`"
        raise ConfigurationError(f"the records have a field {taken[0]!r} of their own, which the file's column would replace", do=do)
    found: dict[int, _Found] = {}
    keeper = _Keeper(http, services, _most(spec, context), judge)
    wanted = list(_wanted(http, spec, context, rows, key, keeper.most, found))
    missing = [each for each in wanted if not keeper.has(each, found)]
    keeper.download(missing, found, in_flight)
    return _with_columns(rows, spec, found)


def ask_for_file(http: Http, request: Request, spec: BinaryResponse, services: Services) -> Response:
    """The answer to a request that is answered with a file: a JSON page with the file's one record, none where it is too large.

    An answer that the manifest's `errors` skip comes as it is. Raises what `Http.download` raises.
    """
    try:
        response, record = _stored(http, request, spec, services)
    except FileTooLarge as error:
        _log.warning("%s; the file is left out", error)
        return Response(200, {}, b"[]", error.where, request)
    return response if record is None else replace(response, content=to_json([record]), request=request)


def store_answer(http: Http, request: Request, spec: BinaryResponse, services: Services) -> dict[str, Any]:
    """An answer that is a file as a whole, kept: its record `{url, sha256, size, media_type, name}`.

    Raises FileTooLarge above `max_bytes`, SourceError for an answer without a file, and what `Http.download` raises.
    """
    response, record = _stored(http, request, spec, services)
    if record is None:
        raise SourceError(f"the answer is no file ({response.reason})", do="look at what the address answers", where=response.where)
    return record


def _stored(http: Http, request: Request, spec: BinaryResponse, services: Services) -> tuple[Response, dict[str, Any] | None]:
    done = http.download(request, services.files.partial(http.name_of(request)), max_bytes=spec.max_bytes)
    if done.path is None:
        return done.response, None
    kept = services.files.keep(done.path, done.media_type or _UNKNOWN)
    record = {"url": kept.url, "sha256": kept.sha256, "size": kept.size, "media_type": kept.media_type, "name": _file_name(done.response)}
    return done.response, record


class _Keeper:
    """Gets files and keeps them, remembering which version of which file has which content."""

    def __init__(self, http: Http, services: Services, most: int, judge: Judge | None) -> None:
        self._http, self._files, self._answers, self._judge = http, services.files, services.answers, judge
        self.most = most

    def has(self, wanted: _Wanted, found: dict[int, _Found]) -> bool:
        """Whether this version of the file is kept already; `found` is told then."""
        if not wanted.version:
            return False
        known = self._known(wanted)
        if known is None or known[0] != wanted.version:
            return False
        found[wanted.row] = _Found(replace(known[1], media_type=wanted.media_type or known[1].media_type))
        return True

    def download(self, wanted: Sequence[_Wanted], found: dict[int, _Found], in_flight: int) -> None:
        """Download what is missing, several at once."""
        by_path: dict[Path, list[_Wanted]] = {}
        for each in wanted:  # several rows may speak of one file
            by_path.setdefault(self._files.partial(f"{each.name} {each.version}"), []).append(each)

        def keep(download: Download, done: Downloaded | FileTooLarge) -> _Found:
            return self._keep(by_path[download.path][0], done)

        asked = (Download(self._asking(rows[0]), path, self.most) for path, rows in by_path.items())
        for rows, result in zip(by_path.values(), self._http.downloads(asked, in_flight, keep), strict=True):
            found.update({each.row: result for each in rows})

    def _asking(self, wanted: _Wanted) -> Request:
        """The request for one file; where no version tells whether it is another one, its validators may."""
        request = replace(wanted.request, expected=wanted.request.expected | _GONE)
        if wanted.version or (kept := self._answers.read(wanted.name)) is None or self._known(wanted) is None:
            return request
        return with_validators(request, kept.etag, kept.last_modified)

    def _keep(self, wanted: _Wanted, done: Downloaded | FileTooLarge) -> _Found:
        if isinstance(done, FileTooLarge):
            return _Found(None, done.what)
        response = done.response
        if response.status == 304 and (known := self._known(wanted)) is not None:
            return _Found(known[1])
        if done.path is None:
            skipped = self._judge is not None and self._judge(response) == "skip"
            return _Found(None, f"skipped as the manifest says ({response.reason})" if skipped else f"not there ({response.reason})")
        file = self._files.keep(done.path, wanted.media_type or done.media_type or _UNKNOWN)
        etag, modified = validators(response)
        if wanted.version or etag or modified:
            said = {"version": wanted.version, "sha256": file.sha256, "size": file.size, "media_type": file.media_type}
            self._answers.keep(wanted.name, KeptAnswer(orjson.dumps(said), etag, modified))
        return _Found(file)

    def _known(self, wanted: _Wanted) -> tuple[str, StoredFile] | None:
        """The version last read of this file, and the file: where it is still kept."""
        kept = self._answers.read(wanted.name)
        try:
            said = orjson.loads(kept.content) if kept is not None else {}
            url = self._files.find(said["sha256"])
            return None if url is None else (said["version"], StoredFile(url, said["sha256"], said["size"], said["media_type"]))
        except (ValueError, KeyError, TypeError):
            return None


def _wanted(
    http: Http, spec: FileSpec, context: Context, rows: pa.Table, key: Sequence[str], most: int, found: dict[int, _Found]
) -> Iterator[_Wanted]:
    """The files of the records that have one; `found` is told of those that are too large to begin."""
    has = parse_condition(spec.has) if spec.has else None
    media_type, size, version = (parse_path(path) if path else None for path in (spec.media_type, spec.size, spec.version))
    account, template = http.name_of(Request("GET", "")), [spec.name, spec.request.path, spec.request.query]
    for row, record in enumerate(_records(rows)):
        if has is not None and not has(record):
            continue
        inside = {**context, "record": record}
        if any(render(f"${{{path}}}", inside) is ABSENT for path, _ in expressions(spec.request.path) if path.startswith("record.")):
            continue  # the record does not say where its file is
        announced = _whole(size.first(record)) if size else None
        if announced is not None and announced > most:
            found[row] = _Found(None, f"the file has {announced:,} bytes, where {most:,} are allowed")
            continue
        # A record's address may lead to another host (Microsoft's download URLs): the credentials are not meant for it.
        named = spec.request.path.lstrip().startswith("${record")
        request = replace(build_request(spec.request, inside), at_home=named)
        parts = [record.get(column) for column in key]
        own = [http.name_of(request)] if not parts or None in parts else [account, template, *map(text_of, parts)]
        said = version.first(record) if version else None
        type_ = media_type.first(record) if media_type else None
        name = hashlib.sha256(to_json(["file", *own])).hexdigest()
        yield _Wanted(row, request, name, "" if said is None else text_of(said), type_ if isinstance(type_, str) else "")


def _records(rows: pa.Table) -> Iterator[dict[str, Any]]:
    nested = [field.name for field in rows.schema if is_json(field)]
    for record in rows.to_pylist():
        for name in nested:
            record[name] = None if record[name] is None else orjson.loads(record[name])
        yield record


def _with_columns(rows: pa.Table, spec: FileSpec, found: Mapping[int, _Found]) -> pa.Table:
    results = [found.get(row, _Found(None)) for row in range(len(rows))]
    files = [each.file for each in results]
    columns: list[list[Any]] = [[getattr(file, name) if file else None for file in files] for name, _ in _COLUMNS[:-1]]
    columns.append([each.skipped or None for each in results])
    for (name, type_), column in zip(_fields(spec), columns, strict=True):
        rows = rows.append_column(name, pa.array(column, type_))
    return rows


def _fields(spec: FileSpec) -> list[tuple[str, pa.DataType]]:
    return [(f"{spec.name}_{name}", type_) for name, type_ in _COLUMNS]


def _is_on(spec: FileSpec, context: Context) -> bool:
    value = render(spec.when, context)
    return value is not ABSENT and value not in (False, "", "false", "no", "0", 0)


def _most(spec: FileSpec, context: Context) -> int:
    value = render(spec.max_bytes, context)
    number = _whole(value)
    if number is None:
        raise ConfigurationError(f"`file.max_bytes` is {value if value is not ABSENT else 'nothing'}", do="write a number of bytes")
    return number


def _whole(value: Any) -> int | None:
    try:
        return None if value is None or value is ABSENT else int(value)
    except (TypeError, ValueError):
        return None


def _file_name(response: Response) -> str:
    """The file's name as the answer says it (RFC 6266), else the end of its address."""
    message = Message()
    message["Content-Disposition"] = response.headers.get("content-disposition", "")
    try:
        said = message.get_filename()
    except (ValueError, LookupError):
        said = None
    return (said or unquote(urlsplit(response.url).path)).replace("\\", "/").rstrip("/").rpartition("/")[2]
