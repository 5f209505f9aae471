"""What is wrong with a manifest's requests: expressions that name nothing, addresses, pages that would all be the same."""

from collections.abc import Iterator
from typing import Any

from muxly_dagster.manifest.checking.addresses import request_address_mistakes
from muxly_dagster.manifest.checking.positions import Path
from muxly_dagster.manifest.language.expressions import expressions, mistake
from muxly_dagster.manifest.schema import KeysetPaging, Manifest, Paging, RequestSpec

Found = tuple[Path, str, str]
"""Where in the file, what is wrong, what to do."""


def paged_mistakes(
    at: Path, at_paging: Path, request: RequestSpec, paging: Paging, known: frozenset[str], manifest: Manifest
) -> Iterator[Found]:
    """Of a request and the way to its next pages."""
    keyset = {"keyset"} if isinstance(paging, KeysetPaging) else set()
    yield from request_mistakes(at, request, known | keyset, manifest)
    then: RequestSpec | None = getattr(paging, "then", None)
    if then is not None:
        yield from request_mistakes((*at_paging, "then"), then, known | {"page"}, manifest)
        if "page" not in named(then) and getattr(paging, "into", None) is None:
            yield (*at_paging, "then"), "it does not name ${page}, so every page would be the same", "place ${page} in it, or add `into`"
    if isinstance(paging, KeysetPaging):
        if paging.into == "keyset" and "keyset" not in named(request):
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


def named(request: RequestSpec) -> set[str]:
    """What the request's expressions name."""
    return {path for path, _ in expressions(request.model_dump())}


def request_mistakes(at: Path, request: RequestSpec, known: frozenset[str], manifest: Manifest) -> Iterator[Found]:
    """Of one request, where `known` may be named."""
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
