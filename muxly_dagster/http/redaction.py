"""Redaction: taking secrets out of text before a person, a log or an exception sees it."""

import json
import re
import threading
from collections import deque
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
_LEARNT = 64
"""How many secrets that come up later are remembered: the newest tokens of a source that gives one for each request."""

_WHOLE_WORD_BELOW = 4
"""Secrets shorter than this are only hidden as whole words: hiding every `a` would leave no message to read."""


class Redaction:
    """Replaces known secrets, and whatever looks like one in a URL, header or JSON text, by `***`.

    A secret is found as it is, URL-encoded and JSON-escaped. May be used and taught from several threads.
    """

    def __init__(self, secrets: Iterable[str] = ()) -> None:
        self._always = frozenset(secrets)
        self._learnt: deque[str] = deque(maxlen=_LEARNT)
        self._lock = threading.Lock()
        self._compiled: tuple[re.Pattern[str] | None, int] | None = _compiled(self._always)

    def learn(self, secrets: Iterable[str]) -> None:
        """Hide these too from now on, as a token that has just been given out."""
        with self._lock:
            for secret in secrets:
                if secret not in self._always:
                    if secret in self._learnt:
                        self._learnt.remove(secret)
                    self._learnt.append(secret)
                    self._compiled = None  # made anew by the first text: most tokens come and go without one

    def _pattern(self) -> tuple[re.Pattern[str] | None, int]:
        compiled = self._compiled
        if compiled is None:
            with self._lock:
                compiled = self._compiled = _compiled([*self._always, *self._learnt])
        return compiled

    def __call__(self, text: str) -> str:
        """The text without secrets."""
        known = self._pattern()[0]
        if known:
            text = known.sub(_HIDDEN, text)
        for pattern, replacement in _PATTERNS:
            text = pattern.sub(replacement, text)
        return text

    def excerpt(self, content: bytes, length: int = 200) -> str:
        """The beginning of a body as one line, without secrets: at most `length` characters, cut with an ellipsis."""
        longest = self._pattern()[1]
        window = max(8192, 4 * longest)
        text = self(content[:window].decode("utf-8", "replace"))
        if len(content) > window:
            text = text[: max(0, len(text) - longest)]  # the last secret may have been cut in two and gone unseen
        line = " ".join(text.split())
        return line if len(line) <= length else line[: length - 1] + "…"

    def __repr__(self) -> str:
        return "Redaction()"


def _compiled(secrets: Iterable[str]) -> tuple[re.Pattern[str] | None, int]:
    """A pattern that finds every form of the secrets, and the length of the longest form."""
    forms = {form for s in secrets if s for form in (s, s.strip(), quote(s, safe=""), quote_plus(s), json.dumps(s)[1:-1]) if form}
    words = [
        re.escape(form) if len(form) >= _WHOLE_WORD_BELOW else rf"(?<!\w){re.escape(form)}(?!\w)"
        for form in sorted(forms, key=len, reverse=True)
    ]
    return re.compile("|".join(words)) if words else None, max(map(len, forms), default=0)
