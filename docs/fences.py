"""Takes the second word off fences such as ```yaml muxly, which is for the tests that run the examples: Markdown knows only one."""

import re
from typing import Any

_MARKED_FENCE = re.compile(r"^(\s*```(?:yaml|console)) (?:muxly|manifest|dev|dagster)$", re.MULTILINE)


def on_page_markdown(markdown: str, **_: Any) -> str:
    """Called by mkdocs (`hooks` in mkdocs.yml) with the text of every page."""
    return _MARKED_FENCE.sub(r"\1", markdown)
