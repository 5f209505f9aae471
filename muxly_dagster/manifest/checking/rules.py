"""What is wrong with a manifest that its model alone cannot see: names, parents, syncs that cannot work, addresses, secrets."""

from collections.abc import Iterator
from typing import Any

from muxly_dagster.manifest.checking.addresses import url_mistakes
from muxly_dagster.manifest.checking.naming import Names, stream_names
from muxly_dagster.manifest.checking.patterns import pattern_mistakes
from muxly_dagster.manifest.checking.positions import Path
from muxly_dagster.manifest.checking.requests import Found, expression_mistakes, named, paged_mistakes, request_mistakes
from muxly_dagster.manifest.checking.sync import bounds, sync_mistakes
from muxly_dagster.manifest.schema import BinaryResponse, CursorSync, JsonResponse, Manifest, NoPaging, OAuth2Kind, StreamSpec, XmlResponse

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
        yield from request_mistakes(("check",), manifest.check, names.common, manifest)
    for name, stream in manifest.streams.items():
        yield from _stream_mistakes(("streams", name), stream, names, manifest)
    yield from _cycles(manifest)
    for name, action in manifest.actions.items():
        yield from request_mistakes(("actions", name, "request"), action.request, names.in_action(action), manifest)
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
        if not bounds(stream):
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
    yield from paged_mistakes((*at, "request"), (*at, "paging"), stream.request, stream.paging, known.request, manifest)
    if stream.discover is not None:
        found = stream.discover
        yield from paged_mistakes((*at, "schema", "request"), (*at, "schema", "paging"), found.request, found.paging, known.place, manifest)
    for number, enrich in enumerate(stream.enrich):
        inside = known.schema | ({"record.*", "key"} if enrich.batch is None else {"keys"})
        yield from request_mistakes((*at, "enrich", number, "request"), enrich.request, inside, manifest)
        if enrich.batch is not None:
            yield from expression_mistakes((*at, "enrich", number, "batch", "each"), enrich.batch.each, known.schema | {"key"})
            if enrich.batch.into is None and "keys" not in named(enrich.request):
                yield (*at, "enrich", number, "batch"), "nothing says where the keys go", "add `into:`, or name ${keys} in the request"
    if stream.file is not None:
        yield from request_mistakes((*at, "file", "request"), stream.file.request, known.schema | {"record.*"}, manifest)
        yield from expression_mistakes((*at, "file", "when"), stream.file.when, names.common)
        yield from expression_mistakes((*at, "file", "max_bytes"), stream.file.max_bytes, names.common)
    yield from _response_mistakes(at, stream)
    yield from sync_mistakes(at, stream, known, manifest)


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
