"""Redaction: taking secrets out of text before a person, a log or an exception sees it."""

import json
import re
from collections.abc import Iterable
from urllib.parse import quote, quote_plus

_HIDDEN = "***"
_SECRET_NAMES = (
    r"(?:(?:[\w.-]*[_.-])?(?:api[_-]?key|access[_-]?key|secret|secret[_-]?key|passw(?:or)?d|signature|credentials?)"
    r"|(?:[\w.-]*(?:access|refresh|id|auth|api|bearer|session|security)[_-]?)?token|hapikey|pwd)"
)
_PATTERNS = [
    (re.compile(r"(\b[a-z][a-z0-9+.-]*://)[^/?#\s\"'<>]*@", re.I), rf"\1{_HIDDEN}@"),
    (re.compile(rf"([?&;](?:{_SECRET_NAMES}|key|sig|auth|code)=)[^&;#\s\"'<>]*", re.I), rf"\1{_HIDDEN}"),
    (re.compile(rf"(\"{_SECRET_NAMES}\"\s*:\s*\")(?:[^\"\\]|\\.)*", re.I), rf"\1{_HIDDEN}"),
    (re.compile(r"\b((?:proxy-)?authorization|(?:set-)?cookie|x-api-key)(\"?\s*[:=]\s*\"?)[^\r\n,}\"]+", re.I), rf"\1\2{_HIDDEN}"),
    (re.compile(r"\b(bearer|basic)\s+(?=\S*\d|\S{20})[\w.~+/=-]{6,}", re.I), rf"\1 {_HIDDEN}"),
]
_WHOLE_WORD_BELOW = 4
"""Secrets shorter than this are only hidden as whole words: hiding every `a` would leave no message to read."""


class Redaction:
    """Replaces known secrets, and whatever looks like one in a URL, header or JSON text, by `***`.

    A secret is found as it is, URL-encoded and JSON-escaped.
    """

    def __init__(self, secrets: Iterable[str] = ()) -> None:
        forms = {form for s in secrets if s for form in (s, s.strip(), quote(s, safe=""), quote_plus(s), json.dumps(s)[1:-1]) if form}
        self._longest = max(map(len, forms), default=0)
        words = [
            re.escape(form) if len(form) >= _WHOLE_WORD_BELOW else rf"(?<!\w){re.escape(form)}(?!\w)"
            for form in sorted(forms, key=len, reverse=True)
        ]
        self._known = re.compile("|".join(words)) if words else None

    def __call__(self, text: str) -> str:
        """The text without secrets."""
        if self._known:
            text = self._known.sub(_HIDDEN, text)
        for pattern, replacement in _PATTERNS:
            text = pattern.sub(replacement, text)
        return text

    def excerpt(self, content: bytes, length: int = 200) -> str:
        """The beginning of a body as one line, without secrets: at most `length` characters, cut with an ellipsis."""
        window = max(8192, 4 * self._longest)
        text = self(content[:window].decode("utf-8", "replace"))
        if len(content) > window:
            text = text[: max(0, len(text) - self._longest)]  # the last secret may have been cut in two and gone unseen
        line = " ".join(text.split())
        return line if len(line) <= length else line[: length - 1] + "…"

    def __repr__(self) -> str:
        return "Redaction()"
