"""What is wrong with the ways a stream of a manifest finds what is new and what is gone."""

from collections.abc import Iterator

from muxly_dagster.manifest.checking.naming import StreamNames
from muxly_dagster.manifest.checking.positions import Path
from muxly_dagster.manifest.checking.requests import Found, expression_mistakes, named, paged_mistakes, request_mistakes
from muxly_dagster.manifest.reading.syncing import column_of
from muxly_dagster.manifest.schema import CursorSync, DeltaSync, ListedDeletes, Manifest, MarkedDeletes, Seed, StreamSpec

_TIMES = ("timestamp", "date", "epoch_ms", "epoch_s")


def sync_mistakes(at: Path, stream: StreamSpec, known: StreamNames, manifest: Manifest) -> Iterator[Found]:
    """Of `sync` and `deletes`."""
    yield from _deletes_mistakes(at, stream, known.deletes, manifest)
    match stream.sync:
        case CursorSync():
            yield from expression_mistakes((*at, "sync"), stream.sync.model_dump(), known.place)
            yield from _cursor_mistakes((*at, "sync"), stream)
        case DeltaSync() as sync:
            yield from _delta_mistakes((*at, "sync"), stream, sync, known.schema, manifest)


def _cursor_mistakes(at: Path, stream: StreamSpec) -> Iterator[Found]:
    sync = stream.sync
    assert isinstance(sync, CursorSync)
    column = column_of(sync.field, stream.flatten)
    if (sync.lag or sync.lookback or sync.window) and stream.types.get(column) not in _TIMES:
        do = f"declare its type: `types: {{{column}: timestamp}}`"
        yield (*at, "field"), f"lag, lookback and window count in time, and {column} is not known to be one", do
    if sync.window and {"window.start", "window.end"} - bounds(stream):
        yield (*at, "window"), "the request does not place ${window.start} and ${window.end}", "place both, or remove `window`"
    if sync.window and sync.start is None:
        yield (*at, "window"), "slices need a beginning", "add `start:`, such as 2020-01-01"


def _delta_mistakes(at: Path, stream: StreamSpec, sync: DeltaSync, known: frozenset[str], manifest: Manifest) -> Iterator[Found]:
    yield from paged_mistakes((*at, "request"), (*at, "paging"), sync.request, sync.paging, known | {"token"}, manifest)
    if "token" not in named(sync.request):
        yield (*at, "request"), "the request does not place ${token}", "place it where the API takes the token of the last pull"
    if not sync.expired:
        do = "say what the API answers then, such as `expired: [410]`; a full pull follows"
        yield (*at, "expired"), "a token becomes too old one day", do
    if not stream.key:
        yield at, "what has changed is told by a key, and the stream has none", "add `key:` to the stream"
    if isinstance(sync.seed, Seed):
        yield from request_mistakes((*at, "seed", "request"), sync.seed.request, known, manifest)
    elif sync.seed.startswith("check:"):
        if manifest.check is None:
            yield (
                (*at, "seed"),
                "there is no `check` whose answer could hold the token",
                "add `check:`, or give the seed a request of its own",
            )
    elif sync.seed != "pages":
        yield (*at, "seed"), f"{sync.seed!r} is no seed", "write `check:$.PATH`, `pages`, or {request: ..., token: $.PATH}"
    columns = _own_key(stream)
    if isinstance(sync.deletes, str) and len(columns) != 1:
        do = "mark deleted records by a column, or give the stream a key of one column (beside those of `for_each.add`)"
        yield (*at, "deletes"), "a list of keys names one column, and the stream's key is not one column", do
    if isinstance(sync.deletes, MarkedDeletes):
        yield from _mark_mistakes((*at, "deletes"), stream, sync.deletes)


def _deletes_mistakes(at: Path, stream: StreamSpec, known: frozenset[str], manifest: Manifest) -> Iterator[Found]:
    match stream.deletes:
        case MarkedDeletes() as marks:
            yield from _mark_mistakes((*at, "deletes"), stream, marks)
        case ListedDeletes() as listed:
            at = (*at, "deletes")
            yield from paged_mistakes((*at, "request"), (*at, "paging"), listed.request, listed.paging, known, manifest)
            if stream.sync.kind == "full":
                yield at, "a full pull sees by itself what is gone", "remove `deletes`"
            elif not stream.key:
                yield at, "what is deleted is named by a key, and the stream has none", "add `key:` to the stream"
            elif len(listed.key) != len(_own_key(stream)):
                yield (*at, "key"), f"the stream's key is {', '.join(_own_key(stream))}", "name a JSONPath for each of these, in this order"


def _mark_mistakes(at: Path, stream: StreamSpec, marks: MarkedDeletes) -> Iterator[Found]:
    if stream.sync.kind != "full" and not stream.key:
        yield at, "what is deleted is named by a key, and the stream has none", "add `key:` to the stream"
    if marks.leaf is not None and not marks.below:
        yield (*at, "leaf"), "nothing says what lies below a record", "add `below`, such as /"
    if marks.below and len(stream.key) != 1:
        yield (*at, "below"), "only a key of one column says what lies below it", "remove `below`, or give the stream a key of one column"


def _own_key(stream: StreamSpec) -> list[str]:
    """The key columns that records bring themselves."""
    return [name for name in stream.key if stream.for_each is None or name not in stream.for_each.add]


def bounds(stream: StreamSpec) -> set[str]:
    """The bounds of a cursor sync that the stream's request places."""
    return named(stream.request) & {"cursor", "window.start", "window.end"}
