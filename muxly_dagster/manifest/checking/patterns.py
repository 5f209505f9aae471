"""Regular expressions within a manifest's JSONPaths: held short and simple, so that no answer can keep one busy for ever."""

import re
from collections.abc import Iterator
from typing import Any

from muxly_dagster.manifest.checking.positions import Path

_MATCHING = re.compile(r"=~|\b(?:match|search)\s*\(")
_LITERAL = re.compile(r"""=~\s*(?:/((?:[^/\\]|\\.)*)/|'([^']*)'|"([^"]*)")|\b(?:match|search)\s*\(.*?,\s*(?:'([^']*)'|"([^"]*)")\s*\)""")
_LONGEST = 200
_MOST_REPETITIONS = 4  # each multiplies the time by the length of the text, where one can take what is another's
_REPEATED = re.compile(r"[+*?]|\{\d*,?\d*\}")
_UNBOUNDED = re.compile(r"[+*]|\{\d*,\}")


def pattern_mistakes(at: Path, value: Any) -> Iterator[tuple[Path, str, str]]:
    """Every regular expression within a value of the manifest that is too long, wrong, or may take exponential time."""
    if isinstance(value, dict | list):
        for key, inner in value.items() if isinstance(value, dict) else enumerate(value):
            yield from pattern_mistakes((*at, key), inner)
    elif isinstance(value, str) and value.lstrip().startswith(("$", "body", "check:")):
        literals = _LITERAL.findall(value)
        if len(literals) != len(_MATCHING.findall(value)):
            do = "write it there, between slashes or quotes: one that comes with an answer could be any"
            yield at, "a regular expression has to be a text of the manifest", do
        for groups in literals:
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
    plain = re.sub(r"\[\^?\]?[^\]]*\]", "x", re.sub(r"\\.", "x", pattern))
    if len(_UNBOUNDED.findall(plain)) > _MOST_REPETITIONS:
        return (
            f"the regular expression {pattern!r} may take for ever on some texts",
            f"write it with at most {_MOST_REPETITIONS} of + and *",
        )
    if _repeats_a_repetition(plain) or re.search(r"\\[1-9]|\(\?P=", pattern):
        do = "write it without a repeated group that holds a repetition or a choice, and without back references"
        return f"the regular expression {pattern!r} may take for ever on some texts", do
    return None


def _repeats_a_repetition(text: str) -> bool:
    """Whether a group that holds a repetition or a choice is itself repeated: the form that takes exponential time."""
    group = re.compile(r"\((?:\?(?:[:=!]|<[=!]|P<\w+>))?([^()]*)\)([+*]|\{\d*,?\d*\})?")
    while found := group.search(text):
        inside = bool(_REPEATED.search(found[1]) or "|" in found[1])
        if inside and found[2]:
            return True
        text = text[: found.start()] + ("x+" if inside else "x") + text[found.end() :]
    return False
