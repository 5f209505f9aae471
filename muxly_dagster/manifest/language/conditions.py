"""What a manifest's error conditions ask of an answer's body: `body.path == 'text'`, or a JSONPath that must select something."""

import json
import re
from collections.abc import Callable
from typing import Any

from muxly_dagster.decoding import Selector, parse_path

_COMPARISON = re.compile(r"""(?P<path>(?:body|\$).*?)\s*(?P<sign>==|!=)\s*(?P<value>'[^']*'|"[^"]*"|-?\d+(?:\.\d+)?|true|false|null)""")


def parse_condition(text: str) -> Callable[[Any], bool]:
    """A test of an answer's body. Raises ValueError that says what is wrong."""
    comparison = _COMPARISON.fullmatch(text.strip())
    if comparison is None:
        if not text.strip().startswith(("$", "body")):
            raise ValueError(f"{text!r} is no condition; write body.PATH == 'text' or a JSONPath")
        exists = _path(text.strip())
        return lambda body: exists.first(body) is not None
    path, same = _path(comparison["path"]), comparison["sign"] == "=="
    value = comparison["value"]
    wanted = value[1:-1] if value[0] in "'\"" else json.loads(value)
    return lambda body: (path.first(body) == wanted) is same


def _path(text: str) -> Selector:
    return parse_path("$" + text.removeprefix("body") if text.startswith("body") else text)
