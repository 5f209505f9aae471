"""Names made of what a file holds: the delivery, the table and the stretch of changes, so that a repetition comes to the same name."""

import re
from dataclasses import dataclass
from urllib.parse import quote

import xxhash

NOTHING = "__HIVE_DEFAULT_PARTITION__"
"""The folder of rows whose value is null or empty, as Hive, Spark and DuckDB name it."""

_LONGEST = 120  # characters of a folder's name; file systems take 255 bytes


def safe(name: str) -> str:
    """A name that is one path segment on every system."""
    return re.sub(r"[^A-Za-z0-9_.-]|^\.", "-", name)


def folder_of(value: str | None, name: str = "") -> str:
    """A value as one path segment, two values never as the same one; `name=value` with a name.

    What is not a letter, digit, `-`, `_` or `.` is written `%2F`, as Hive does. Values too long for a folder end in their hash.
    """
    text = quote(value, safe="").replace("~", "%7E") if value else NOTHING
    if text.startswith("."):
        text = "%2E" + text[1:]  # neither hidden nor a way out of the folder
    if len(text) > _LONGEST:
        text = f"{text[:_LONGEST].rpartition('%')[0] or text[:_LONGEST]}~{xxhash.xxh3_128_hexdigest((value or '').encode())}"
    return f"{name}={text}" if name else text


@dataclass(frozen=True, slots=True)
class Series:
    """All that is written for one delivery id and one table: `after` and `upto` tell one of its stretches from another."""

    delivery_id: str
    table_id: str

    def __str__(self) -> str:
        return f"{safe(self.delivery_id)}-{safe(self.table_id)}"

    def name(self, after: int, upto: int) -> str:
        """A stretch's name, without an extension. Names in their order are stretches in theirs."""
        return f"{self}-{after:012d}-{upto:012d}"
