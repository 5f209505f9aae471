"""A manifest's request made ready to be sent: its expressions filled in, its one body as JSON, form or text."""

import re
from collections.abc import Mapping
from typing import Any
from urllib.parse import unquote, urlencode

from muxly_dagster.errors import SourceError
from muxly_dagster.http import Request
from muxly_dagster.manifest.language.expressions import ABSENT, Context, render, text_of
from muxly_dagster.manifest.schema import RequestSpec

_WHOLE = re.compile(r"\$\{\s*(?:token|page|key|record)\b[^{}]*\}")
_FORM = "application/x-www-form-urlencoded"


def build_request(spec: RequestSpec, context: Context, *, idempotent: bool | None = True) -> Request:
    """The request with its expressions filled in; what names a value that is not there is left out.

    A path that is nothing but a value of the provider's own (`${token}`, `${page}`, `${key}`, `${record.NAME}`) may be a whole URL, and is
    used as it is then: the client still holds it to the manifest's `hosts`. Other values in a path cannot leave their place in it: one
    that would step up (`..`) raises SourceError.
    `idempotent` says whether the request may safely be sent twice: a pull only reads, a search by POST too.
    """
    headers = {name: text_of(value) for name, value in render(spec.headers, context).items()}
    body = render(spec.body, context)
    content: Any = None
    if spec.form:
        content = _form(render(spec.form, context))
        headers = {"Content-Type": _FORM, **headers}
    elif spec.content is not None:
        content = render(spec.content, context)
        content = None if content is ABSENT else content if isinstance(content, bytes) else text_of(content).encode()
    return Request(
        spec.method,
        _path(spec.path, context),
        params=render(spec.query, context) or None,
        headers=headers or None,
        json=None if body is ABSENT else body,
        content=content,
        idempotent=idempotent,
    )


def _path(text: str, context: Context) -> str:
    if _WHOLE.fullmatch(text.strip()):
        value = render(text.strip(), context)
        if isinstance(value, str) and value.startswith(("https://", "http://")):
            return value
    path = render(text, context, into_path=True)
    if path is ABSENT:
        return ""
    for written, segment in zip(text.split("/"), path.split("/"), strict=False):
        # Whatever reads the address takes these for steps, however they are written (RFC 3986, 5.2.4; WHATWG URL, 4.4).
        if "${" in written and unquote(segment) in (".", ".."):
            raise SourceError(
                f"the value {segment!r} would lead out of its place in {text}", do="correct the value: it names nothing there"
            )
    return str(path)


def _form(fields: Mapping[str, Any]) -> bytes:
    pairs = [(name, item) for name, value in fields.items() for item in (value if isinstance(value, list | tuple) else [value])]
    return urlencode([(name, text_of(item)) for name, item in pairs]).encode()
