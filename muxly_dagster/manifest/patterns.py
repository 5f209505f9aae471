"""Regular expressions within a manifest's JSONPaths: held short and simple, so that no answer can keep one busy for ever."""

import re
from collections.abc import Iterator
from typing import Any

from muxly_dagster.manifest.positions import Path

_IN_PATH = re.compile(r"""=~\s*/((?:[^/\\]|\\.)*)/|(?:match|search)\s*\([^,]*,\s*(?:'([^']*)'|"([^"]*)")""")
_LONGEST = 200
_REPEATED = re.compile(r"[+*]|\{\d*,?\d*\}")


def pattern_mistakes(at: Path, value: Any) -> Iterator[tuple[Path, str, str]]:
    """Every regular expression within a value of the manifest that is too long, wrong, or may take exponential time."""
    if isinstance(value, dict | list):
        for key, inner in value.items() if isinstance(value, dict) else enumerate(value):
            yield from pattern_mistakes((*at, key), inner)
    elif isinstance(value, str) and ("$" in value or value.lstrip().startswith("body")):
        for groups in _IN_PATH.findall(value):
            found = _mistake("".join(groups))
            if found:
                yield at, *found


def _mistake(pattern: str) -> tuple[str, str] | None:
    if len(pattern) > _LONGEST:
        return f"the regular expression has {len(pattern)} characters", f"make it shorter than {_LONGEST}"
    try:
        re.compile(pattern)
    except re.error as error:
        return f"{pattern!r} is no regular expression: {error}", "correct it"
    if _repeats_a_repetition(pattern) or re.search(r"\\[1-9]|\(\?P=", pattern):
        do = "write it without a repeated group that holds a repetition or a choice, and without back references"
        return f"the regular expression {pattern!r} may take for ever on some texts", do
    return None


def _repeats_a_repetition(pattern: str) -> bool:
    """Whether a group that holds a repetition or a choice is itself repeated: the form that takes exponential time."""
    text = re.sub(r"\\.", "x", pattern)
    text = re.sub(r"\[\^?\]?[^\]]*\]", "x", text)
    group = re.compile(r"\((?:\?(?:[:=!]|<[=!]|P<\w+>))?([^()]*)\)([+*]|\{\d*,?\d*\})?")
    while found := group.search(text):
        inside = bool(_REPEATED.search(found[1]) or "|" in found[1])
        if inside and found[2]:
            return True
        text = text[: found.start()] + ("x+" if inside else "x") + text[found.end() :]
    return False
