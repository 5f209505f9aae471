"""Who gets a mail: addresses that templates give for records, and records put together by them.

Nothing that a record says can become another recipient: an address with a line break in it is refused, and a value that stands within
an address loses what addresses are made of.
"""

import re
from collections.abc import Callable, Iterable, Sequence
from email import policy
from email.errors import NonASCIILocalPartDefect, ObsoleteHeaderDefect
from email.headerregistry import Address
from functools import lru_cache
from typing import Any, NamedTuple

from muxly_dagster.errors import RecordRefused
from muxly_dagster.messages import Letter, Settled, Template, shorten

CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]+")
"""What stands in no header."""

_ENCODED = "=?"
"""How a word in another encoding begins (RFC 2047, 2). One that a record brings may hold a line break, which would be decoded."""

_OF_ADDRESSES = re.compile(r'[\x00-\x1f\x7f()<>\[\]:;,\\"]+')
_SIMPLE = re.compile(r'(?P<name>[^()<>\[\]:;,\\"]*)<(?P<address>[^()<>\[\]:;,\\"\s]+)>')
_DOMAIN = re.compile(r"(?!-)[A-Za-z0-9-]{1,63}(?<!-)(\.(?!-)[A-Za-z0-9-]{1,63}(?<!-))*|\[[0-9A-Fa-f.:]+\]")


class Recipients(NamedTuple):
    """Who gets a mail, and who the answers."""

    to: tuple[Address, ...]
    cc: tuple[Address, ...]
    bcc: tuple[Address, ...]
    reply_to: tuple[Address, ...]

    @property
    def envelope(self) -> tuple[str, ...]:
        """Each address once."""
        return tuple(dict.fromkeys(address.addr_spec for address in (*self.to, *self.cc, *self.bcc)))


class Mail(NamedTuple):
    """The records of one mail, and who gets it."""

    letter: Letter
    recipients: Recipients


def mails(letters: Iterable[Letter], recipients_of: Callable[[Letter], Recipients], most: int, settled: Settled) -> list[Mail]:
    """The letters taken apart by recipients, so that one person's records are nobody else's, with at most so many records in each.

    In the order of their newest records. Records whose recipients cannot be told are refused.
    """
    found: list[Mail] = []
    for letter in letters:
        apart: dict[str, tuple[Recipients, list[dict[str, Any]]]] = {}
        for record in letter.records:
            try:
                recipients = recipients_of(Letter((record,), letter.rule))
            except RecordRefused as error:
                settled.refuse([record["metadata"]["seq"]], error.what)
            else:
                apart.setdefault(repr(recipients), (recipients, []))[1].append(record)
        for recipients, held in apart.values():
            pieces = (tuple(held[at : at + most]) for at in range(0, len(held), most))
            found += [Mail(Letter(piece, letter.rule, letter.alike), recipients) for piece in pieces]
    return sorted(found, key=lambda mail: mail.letter.seqs[-1])


@lru_cache(maxsize=4096)
def addresses(text: str) -> tuple[Address, ...]:
    """The addresses in a text such as `Ada <ada@acme.example>, bob@acme.example` (RFC 5322, 3.4). Raises ValueError."""
    if CONTROL.search(text):
        raise ValueError("holds a line break or another control character")
    try:
        return tuple(_sound(address) for address in _read(text)) if text else ()
    except Exception:  # what the standard library makes of odd addresses is ValueError, IndexError, AttributeError and more
        raise ValueError("is no address such as ada@acme.example") from None


def _read(text: str) -> tuple[Address, ...]:
    simple = _SIMPLE.fullmatch(text)
    if simple:  # the parser of headers stumbles over names such as `.` and holds `Acme Inc.` for bad style
        return (Address(simple["name"].strip(), addr_spec=simple["address"]),)
    header: Any = policy.SMTP.header_factory("to", text)
    found: tuple[Address, ...] = header.addresses
    if not found or not all(map(_is_harmless, header.defects)):
        raise ValueError
    return found


def _is_harmless(defect: Exception) -> bool:
    """Letters beyond ASCII (RFC 6531), and a point in a name."""
    return isinstance(defect, NonASCIILocalPartDefect) or (isinstance(defect, ObsoleteHeaderDefect) and "phrase" in str(defect))


def header_text(text: str) -> str:
    """A text on one line, with nothing in it that a header could be made of."""
    return " ".join(CONTROL.sub(" ", text).replace(_ENCODED, "= ?").split())


def _sound(address: Address) -> Address:
    """The address with its domain in ASCII (RFC 5891). Raises ValueError."""
    domain = address.domain if address.domain.isascii() else address.domain.encode("idna").decode()
    if not address.username or _ENCODED in address.username or CONTROL.search(address.username) or not _DOMAIN.fullmatch(domain):
        raise ValueError
    return Address(header_text(address.display_name), address.username, domain)


def addressed(templates: Sequence[str], letter: Letter, setting: str) -> tuple[Address, ...]:
    """The addresses that templates give for some records, each once; a value may be a list of them. Raises RecordRefused."""
    found: dict[str, Address] = {}
    for template in templates:
        value = Template(template, _as_part_of_an_address, typed=True).render(letter)
        for each in value if isinstance(value, list | tuple) else [value]:
            text = "" if each is None else str(each).strip()
            try:
                found |= {address.addr_spec: address for address in addresses(text)}
            except ValueError as error:
                raise RecordRefused(f"`{setting}` {error}: {shorten(CONTROL.sub(' ', text), 100)!r}") from None
    return tuple(found.values())


def _as_part_of_an_address(value: str) -> str:
    """A value that its author put into an address, `{{ name }} <{{ email }}>`: it may not bring further ones."""
    return _OF_ADDRESSES.sub(" ", value)
