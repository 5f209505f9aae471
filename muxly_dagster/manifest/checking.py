"""What is wrong with a manifest that its model alone cannot see: names, parents, syncs that cannot work, addresses, secrets."""

from collections.abc import Iterator
from typing import Any

from muxly_dagster.manifest.addresses import request_address_mistakes, url_mistakes
from muxly_dagster.manifest.expressions import expressions, mistake
from muxly_dagster.manifest.naming import Names, stream_names
from muxly_dagster.manifest.patterns import pattern_mistakes
from muxly_dagster.manifest.positions import Path
from muxly_dagster.manifest.schema import (
    BinaryResponse,
    CursorSync,
    DeltaSync,
    JsonResponse,
    KeysetPaging,
    ListedDeletes,
    Manifest,
    MarkedDeletes,
    NoPaging,
    OAuth2Kind,
    Paging,
    RequestSpec,
    Seed,
    StreamSpec,
    XmlResponse,
)
from muxly_dagster.manifest.syncing import column_of

Found = tuple[Path, str, str]
"""Where in the file, what is wrong, what to do."""

_TIMES = ("timestamp", "date", "epoch_ms", "epoch_s")
_FIELDS = ("auth", "base_url", "pulls", "connector")
_ATTRIBUTES = ("id", "title", "path", "manifest", "example", "pull", "stream", "streams", "services", "act")
_TAKEN = (*_FIELDS, *_ATTRIBUTES)
_ROOTS = ("config", "cursor", "window", "keyset", "page", "token", "key", "keys", "record", "input", "schema", "api_version")


def mistakes(manifest: Manifest) -> Iterator[Found]:
    """Everything that keeps the manifest from working."""
    names = Names.of(manifest)
    yield from _address_mistakes(manifest, names)
    yield from _input_mistakes(manifest)
    yield from pattern_mistakes((), manifest.model_dump(by_alias=True))
    if manifest.check is not None:
        yield from _request_mistakes(("check",), manifest.check, names.common, manifest)
    for name, stream in manifest.streams.items():
        yield from _stream_mistakes(("streams", name), stream, names, manifest)
    yield from _cycles(manifest)
    for name, action in manifest.actions.items():
        yield from _request_mistakes(("actions", name, "request"), action.request, names.in_action(action), manifest)
    for name, webhook in manifest.webhooks.items():
        for event, streams in webhook.streams.items():
            for stream_name in streams:
                if stream_name not in manifest.streams:
                    do = f"there are {', '.join(manifest.streams)}"
                    yield ("webhooks", name, "streams", event), f"there is no stream {stream_name!r}", do


def warnings(manifest: Manifest) -> Iterator[str]:
    """What works, but not as one may think."""
    for name, stream in manifest.streams.items():
        if not isinstance(stream.sync, CursorSync):
            continue
        if not _bounds(stream):
            yield f"stream {name} places neither ${{cursor}} nor ${{window.start}} in its request: everything is read each time"
        if not stream.key:
            yield f"stream {name} has a cursor but no key: a record that is read again is stored again"


# ---- the connector


def _address_mistakes(manifest: Manifest, names: Names) -> Iterator[Found]:
    yield from expression_mistakes(("base_url",), manifest.base_url, names.common | {"config.base_url"})
    yield from url_mistakes(("base_url",), manifest.base_url, manifest.hosts)
    kinds: set[str] = set()
    for name, kind in manifest.auth.items():
        if kind.kind in kinds:
            yield ("auth", name), f"there is another {kind.kind} already: a source chooses by kind", "remove one of them"
        kinds.add(kind.kind)
        if isinstance(kind, OAuth2Kind):
            for field in ("token_url", "authorize_url", "revoke_url"):
                address: str = getattr(kind, field)
                if address:
                    yield from expression_mistakes(("auth", name, field), address, names.common)
                    yield from url_mistakes(("auth", name, field), address, manifest.hosts)
            for scope in kind.default_scopes:
                if scope not in kind.scopes:
                    yield ("auth", name, "default_scopes"), f"{scope!r} is not among `scopes`", "add it there by this short name"


def _input_mistakes(manifest: Manifest) -> Iterator[Found]:
    for name, each in manifest.config.items():
        at: Path = ("config", name)
        if name in _TAKEN and not (name == "base_url" and each.type == "string"):
            yield at, "this name is taken: every source has it", "choose another name"
        if each.type in ("file", "bytes"):
            yield at, f"only actions take a {each.type}", "choose another type"
        if each.secret and each.type != "string":
            yield at, "only a string can be secret", "make it `type: string`"
        if each.secret and each.default not in (None, ""):
            yield (*at, "default"), "a secret has no default", "remove the default"
        if not each.secret and (name.endswith("api_key") or {"secret", "password", "token"} & set(name.split("_"))):
            yield at, "this looks like a secret, but is shown like any other setting", "add `secret: true`, or choose another name"


# ---- a stream


def _stream_mistakes(at: Path, stream: StreamSpec, names: Names, manifest: Manifest) -> Iterator[Found]:
    known = stream_names(names, stream)
    if stream.for_each is not None:
        yield from _for_each_mistakes(at, stream, manifest)
        yield from expression_mistakes((*at, "for_each", "add"), stream.for_each.add, known.place)
    yield from _paged_mistakes((*at, "request"), (*at, "paging"), stream.request, stream.paging, known.request, manifest)
    if stream.discover is not None:
        found = stream.discover
        yield from _paged_mistakes(
            (*at, "schema", "request"), (*at, "schema", "paging"), found.request, found.paging, known.place, manifest
        )
    for number, enrich in enumerate(stream.enrich):
        inside = known.schema | ({"record.*", "key"} if enrich.batch is None else {"keys"})
        yield from _request_mistakes((*at, "enrich", number, "request"), enrich.request, inside, manifest)
        if enrich.batch is not None:
            yield from expression_mistakes((*at, "enrich", number, "batch", "each"), enrich.batch.each, known.schema | {"key"})
            named = {path for path, _ in expressions(enrich.request.model_dump())}
            if enrich.batch.into is None and "keys" not in named:
                yield (*at, "enrich", number, "batch"), "nothing says where the keys go", "add `into:`, or name ${keys} in the request"
    if stream.file is not None:
        yield from _request_mistakes((*at, "file", "request"), stream.file.request, known.schema | {"record.*"}, manifest)
        yield from expression_mistakes((*at, "file", "when"), stream.file.when, names.common)
        yield from expression_mistakes((*at, "file", "max_bytes"), stream.file.max_bytes, names.common)
    yield from _response_mistakes(at, stream)
    yield from _deletes_mistakes(at, stream, known.deletes, manifest)
    match stream.sync:
        case CursorSync():
            yield from expression_mistakes((*at, "sync"), stream.sync.model_dump(), known.place)
            yield from _cursor_mistakes((*at, "sync"), stream)
        case DeltaSync() as sync:
            yield from _delta_mistakes((*at, "sync"), stream, sync, known.schema, manifest)


def _for_each_mistakes(at: Path, stream: StreamSpec, manifest: Manifest) -> Iterator[Found]:
    each = stream.for_each
    assert each is not None
    if each.as_ in _ROOTS:
        yield (*at, "for_each"), f"{each.as_!r} means something else in a request", "choose another word"
    if isinstance(each.in_, str):
        root, _, name = each.in_.partition(".")
        known = {"config": list(manifest.config), "streams": list(manifest.streams)}.get(root)
        if known is None:
            yield (*at, "for_each"), f"{each.in_!r} is nothing to read for each of", "write a list, config.NAME or streams.NAME"
        elif name not in known:
            what = "input" if root == "config" else "stream"
            yield (
                (*at, "for_each"),
                f"there is no {what} {name!r}",
                f"there are {', '.join(known)}" if known else f"declare it under `{root}`",
            )


def _cycles(manifest: Manifest) -> Iterator[Found]:
    """Streams that are read for each record of themselves, by however many steps."""
    parents = {name: each.in_.removeprefix("streams.") for name, each in _parents(manifest)}
    for name in parents:
        seen, step = [name], parents.get(name)
        while step is not None and step not in seen:
            seen.append(step)
            step = parents.get(step)
        if step == name:
            yield (
                ("streams", name, "for_each"),
                f"it is read for each record of itself: {' ← '.join([*seen, name])}",
                "begin at another stream",
            )


def _parents(manifest: Manifest) -> Iterator[tuple[str, Any]]:
    for name, stream in manifest.streams.items():
        if stream.for_each is not None and isinstance(stream.for_each.in_, str) and stream.for_each.in_.startswith("streams."):
            yield name, stream.for_each


def _response_mistakes(at: Path, stream: StreamSpec) -> Iterator[Found]:
    if not isinstance(stream.response, JsonResponse | XmlResponse) and stream.records != "$":
        yield (*at, "records"), f"a {stream.response.kind} answer has no path to its records", "remove `records`"
    if isinstance(stream.response, BinaryResponse) and not isinstance(stream.paging, NoPaging):
        yield (*at, "paging"), "a file is one answer", "remove `paging`"


def _paged_mistakes(
    at: Path, at_paging: Path, request: RequestSpec, paging: Paging, known: frozenset[str], manifest: Manifest
) -> Iterator[Found]:
    keyset = {"keyset"} if isinstance(paging, KeysetPaging) else set()
    yield from _request_mistakes(at, request, known | keyset, manifest)
    then: RequestSpec | None = getattr(paging, "then", None)
    if then is not None:
        yield from _request_mistakes((*at_paging, "then"), then, known | {"page"}, manifest)
        if "page" not in _named(then) and getattr(paging, "into", None) is None:
            yield (*at_paging, "then"), "it does not name ${page}, so every page would be the same", "place ${page} in it, or add `into`"
    if isinstance(paging, KeysetPaging):
        if paging.into == "keyset" and "keyset" not in _named(request):
            yield at_paging, "the request does not place ${keyset}", "place it, or say by `into` where it goes"
        if not paging.sorted and not _sorts_by(request.model_dump(by_alias=True), paging.by.rpartition(".")[2]):
            do = f"ask for records sorted by {paging.by}, or say `sorted: true` if the API does that unasked"
            yield at_paging, f"the request does not sort by {paging.by}", do


def _sorts_by(value: Any, field: str, *, within: bool = False) -> bool:
    """Whether something called sort or order names the field."""
    if isinstance(value, dict):
        return any(
            _sorts_by(inner, field, within=within or "sort" in key.lower() or "order" in key.lower()) for key, inner in value.items()
        )
    if isinstance(value, list):
        return any(_sorts_by(inner, field, within=within) for inner in value)
    return within and isinstance(value, str) and field.lower() in value.lower()


# ---- sync


def _cursor_mistakes(at: Path, stream: StreamSpec) -> Iterator[Found]:
    sync = stream.sync
    assert isinstance(sync, CursorSync)
    column = column_of(sync.field, stream.flatten)
    if (sync.lag or sync.lookback or sync.window) and stream.types.get(column) not in _TIMES:
        do = f"declare its type: `types: {{{column}: timestamp}}`"
        yield (*at, "field"), f"lag, lookback and window count in time, and {column} is not known to be one", do
    if sync.window and {"window.start", "window.end"} - _bounds(stream):
        yield (*at, "window"), "the request does not place ${window.start} and ${window.end}", "place both, or remove `window`"
    if sync.window and sync.start is None:
        yield (*at, "window"), "slices need a beginning", "add `start:`, such as 2020-01-01"


def _delta_mistakes(at: Path, stream: StreamSpec, sync: DeltaSync, known: frozenset[str], manifest: Manifest) -> Iterator[Found]:
    yield from _paged_mistakes((*at, "request"), (*at, "paging"), sync.request, sync.paging, known | {"token"}, manifest)
    if "token" not in _named(sync.request):
        yield (*at, "request"), "the request does not place ${token}", "place it where the API takes the token of the last pull"
    if not sync.expired:
        do = "say what the API answers then, such as `expired: [410]`; a full pull follows"
        yield (*at, "expired"), "a token becomes too old one day", do
    if not stream.key:
        yield at, "what has changed is told by a key, and the stream has none", "add `key:` to the stream"
    if isinstance(sync.seed, Seed):
        yield from _request_mistakes((*at, "seed", "request"), sync.seed.request, known, manifest)
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
            yield from _paged_mistakes((*at, "request"), (*at, "paging"), listed.request, listed.paging, known, manifest)
            if stream.sync.kind == "full":
                yield at, "a full pull sees by itself what is gone", "remove `deletes`"
            elif not stream.key:
                yield at, "what is deleted is named by a key, and the stream has none", "add `key:` to the stream"
            elif len(listed.key) != len(_own_key(stream)):
                yield (*at, "key"), f"the stream's key is {', '.join(_own_key(stream))}", "name a JSONPath for each of these, in this order"


def _mark_mistakes(at: Path, stream: StreamSpec, marks: MarkedDeletes) -> Iterator[Found]:
    if stream.sync.kind != "full" and not stream.key:
        yield at, "what is deleted is named by a key, and the stream has none", "add `key:` to the stream"
    if marks.below and len(stream.key) != 1:
        yield (*at, "below"), "only a key of one column says what lies below it", "remove `below`, or give the stream a key of one column"


def _own_key(stream: StreamSpec) -> list[str]:
    """The key columns that records bring themselves."""
    return [name for name in stream.key if stream.for_each is None or name not in stream.for_each.add]


def _bounds(stream: StreamSpec) -> set[str]:
    return _named(stream.request) & {"cursor", "window.start", "window.end"}


# ---- requests


def _named(request: RequestSpec) -> set[str]:
    return {path for path, _ in expressions(request.model_dump())}


def _request_mistakes(at: Path, request: RequestSpec, known: frozenset[str], manifest: Manifest) -> Iterator[Found]:
    yield from expression_mistakes(at, request.model_dump(by_alias=True), known)
    yield from request_address_mistakes((*at, "path"), request.path, manifest.hosts)


def expression_mistakes(at: Path, value: Any, known: frozenset[str]) -> Iterator[Found]:
    """Expressions that name nothing, or a filter that is not there."""
    for path, filters in expressions(value):
        found = mistake(path, filters, known)
        if found:
            yield (*at, *_path_of(value, "${" + path)), *found


def _path_of(value: Any, text: str) -> Path:
    """Where in the value the text stands."""
    pairs = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, inner in pairs:
        if isinstance(inner, str) and text in inner:
            return (key,)
        found = _path_of(inner, text)
        if found:
            return (key, *found)
    return ()
