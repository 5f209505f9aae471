"""Streams: the object types that every account has, those that only some have, and the two directories beside them."""

import re
from collections.abc import Iterable

import pyarrow as pa

from muxly_dagster.connector import Stream
from muxly_dagster.errors import ConfigurationError
from muxly_dagster.project.checks import did_you_mean
from muxly_dagster.records import TIMESTAMP

OBJECTS: dict[str, str] = {
    "contacts": "People.",
    "companies": "Companies.",
    "deals": "Deals.",
    "tickets": "Tickets of the help desk.",
    "products": "Products of the library.",
    "line_items": "Products and prices on deals and quotes.",
    "quotes": "Quotes.",
    "calls": "Engagements: calls.",
    "emails": "Engagements: one-to-one e-mails.",
    "meetings": "Engagements: meetings.",
    "notes": "Engagements: notes.",
    "tasks": "Engagements: tasks.",
    "communications": "Engagements: SMS, WhatsApp and LinkedIn messages.",
    "postal_mail": "Engagements: letters.",
}
DIRECTORIES = {"owners": "Users who own records.", "pipelines": "Pipelines with their stages."}

_BY_TYPE = re.compile(r"\d+-\d+|p\d*_\w+")
_BASE = pa.schema(
    [("id", pa.string()), ("createdAt", TIMESTAMP), ("updatedAt", TIMESTAMP), ("archived", pa.bool_())],
)


def known_streams() -> tuple[Stream, ...]:
    """The streams of every account."""
    return tuple(stream_of(name) for name in (*OBJECTS, *DIRECTORIES))


def stream_of(name: str) -> Stream:
    """The stream of this name. Raises ConfigurationError for one that no account can have."""
    if name == "owners":
        return Stream(name, key=("id",), description=DIRECTORIES[name])
    if name == "pipelines":
        return Stream(name, key=("object_type", "id"), description=DIRECTORIES[name])
    check_type(name, "stream", [*OBJECTS, *DIRECTORIES])
    what = OBJECTS.get(name, "Records of a custom object.")
    return Stream(name, key=("id",), sync="cursor", schema=_BASE, description=what, deletes=True)


def check_type(name: str, what: str, known: Iterable[str] = OBJECTS) -> None:
    """Raises ConfigurationError for a name that is neither a standard object's nor formed like a custom one's."""
    if name in OBJECTS or _BY_TYPE.fullmatch(name):
        return
    engagements = ", ".join(n for n, about in OBJECTS.items() if about.startswith("Engagements"))
    near = f"engagements are {engagements}" if name == "engagements" else did_you_mean(name, known)
    raise ConfigurationError(f"hubspot has no {what} {name!r}", do=f"{near} Custom objects are named as `p1234_name` or `2-1234`.")
