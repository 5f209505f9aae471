"""The text of a mail whose author wrote HTML alone, for readers that show none."""

import re
from html.parser import HTMLParser

_BREAKING = frozenset(
    {"p", "div", "br", "tr", "table", "ul", "ol", "li", "h1", "h2", "h3", "h4", "h5", "h6", "hr", "blockquote", "pre", "section"}
)
_APART = frozenset({"p", "table", "ul", "ol", "h1", "h2", "h3", "h4", "h5", "h6", "blockquote", "pre"})
_UNSEEN = frozenset({"script", "style", "head", "title", "template"})


class _Reader(HTMLParser):
    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.pieces: list[str] = []
        self._unseen = 0
        self._links: list[tuple[str, int]] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self._unseen += tag in _UNSEEN
        if tag == "a":
            self._links.append((dict(attrs).get("href") or "", len(self.pieces)))
        elif tag in ("td", "th"):
            self.pieces.append("\t")
        else:
            self._break(tag)
        if tag == "li":
            self.pieces.append("- ")

    def handle_endtag(self, tag: str) -> None:
        self._unseen = max(0, self._unseen - (tag in _UNSEEN))
        if tag == "a" and self._links:
            address, start = self._links.pop()
            shown = "".join(self.pieces[start:]).strip()
            if address.startswith(("http://", "https://")) and address != shown:
                self.pieces.append(f" ({address})")
        self._break(tag)

    def handle_data(self, data: str) -> None:
        if not self._unseen:
            self.pieces.append(re.sub(r"\s+", " ", data))

    def _break(self, tag: str) -> None:
        if tag in _BREAKING:
            self.pieces.append("\n\n" if tag in _APART else "\n")


def text_of(markup: str) -> str:
    """What HTML says, in plain text: paragraphs apart, cells side by side, addresses of links behind their words."""
    reader = _Reader()
    reader.feed(markup)
    reader.close()
    lines = [re.sub(r" *\t *", "  ", re.sub(r" +", " ", line).strip()).strip() for line in "".join(reader.pieces).split("\n")]
    return re.sub(r"\n{3,}", "\n\n", "\n".join(lines)).strip() + "\n"
