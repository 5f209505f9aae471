"""What a mail made of records says: its headers, its text and HTML, what is attached.

Nothing that a record says can become a header or markup: line breaks come into no header, and values in HTML are escaped.
"""

import datetime as dt
import hashlib
import html
import re
from dataclasses import dataclass
from email import policy
from email.headerregistry import Address
from email.message import EmailMessage
from email.utils import format_datetime

from muxly_dagster.destination import Delivery
from muxly_dagster.destinations.email import tables
from muxly_dagster.destinations.email.addressing import Recipients, header_text
from muxly_dagster.destinations.email.plain import text_of
from muxly_dagster.errors import RecordRefused
from muxly_dagster.messages import Letter, Template, shorten

_UNPRINTABLE = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f]")
_BARE_BREAK = re.compile(rb"\r(?!\n)|(?<!\r)\n")
_LONGEST_SUBJECT = 300

# Bodies in 7 bits, since not every server between here and the reader takes 8 (RFC 6152).
_ASCII = policy.SMTP.clone(cte_type="7bit")
_UTF8 = policy.SMTPUTF8.clone(cte_type="7bit")


@dataclass(frozen=True, slots=True)
class Content:
    """What a mail says: templates, empty where there is none. `columns` are those of tables and files; none: all that hold something."""

    subject: str
    html: str
    text: str
    columns: tuple[str, ...]
    csv: bool


def message_id(delivery: Delivery, letter: Letter, domain: str) -> str:
    """The same records of the same route make a mail of the same id (RFC 5322, 3.6.4)."""
    digest = hashlib.sha256(f"{delivery.id}\n{letter.id}".encode()).hexdigest()
    return f"<{digest[:32]}@{domain}>"


def compose(delivery: Delivery, letter: Letter, recipients: Recipients, sender: Address, content: Content) -> EmailMessage:
    """The mail for some records. Raises RecordRefused where a template fails on them."""
    international = not all(address.isascii() for address in (sender.addr_spec, *recipients.envelope))
    mail = EmailMessage(policy=_UTF8 if international else _ASCII)
    mail["From"] = sender
    mail["To"] = recipients.to or "undisclosed-recipients:;"
    if recipients.cc:
        mail["Cc"] = recipients.cc
    if recipients.reply_to:
        mail["Reply-To"] = recipients.reply_to
    mail["Subject"] = _subject(content.subject, letter)
    mail["Date"] = format_datetime(dt.datetime.now(dt.UTC))
    mail["Message-ID"] = message_id(delivery, letter, sender.domain)
    mail["Auto-Submitted"] = "auto-generated"  # no out-of-office notes, please (RFC 3834)
    mail["X-Muxly-Id"] = header_text(letter.id)
    text, markup = _bodies(content, letter)
    mail.set_content(text)
    if markup:
        mail.add_alternative(markup, subtype="html")
    if content.csv:
        name = re.sub(r"[^A-Za-z0-9_-]+", "_", letter.records[-1]["stream"]) + ".csv"
        file = tables.csv(delivery, letter, content.columns)
        mail.add_attachment(file, maintype="text", subtype="csv", filename=name, params={"charset": "utf-8"})
    return mail


def written(mail: EmailMessage) -> bytes:
    """A mail as it goes over the line. Raises RecordRefused where it cannot be written: what people call themselves is without limits."""
    try:
        content = mail.as_bytes()
    except Exception as error:  # whatever the standard library meets while it folds headers
        raise RecordRefused(f"no mail can be made of it: {type(error).__name__}: {error}") from None
    head = content.partition(b"\r\n\r\n")[0]
    names = [line.partition(b":")[0].decode() for line in head.split(b"\r\n") if not line.startswith((b" ", b"\t"))]
    if names != mail.keys() or _BARE_BREAK.search(head):  # older versions of Python do not look (CVE-2024-6923)
        raise RecordRefused("no mail can be made of it: it would bring headers of its own")
    return content


def _subject(template: str, letter: Letter) -> str:
    said = header_text(Template(template).render(letter)) if template else ""
    return shorten(said or header_text(tables.headline(letter)), _LONGEST_SUBJECT)


def _bodies(content: Content, letter: Letter) -> tuple[str, str]:
    """The text and the HTML: what the templates give, the text made of the HTML where there is none, a table where there is neither."""
    if not content.html and not content.text:
        text, markup = tables.plain(letter, content.columns), tables.markup(letter, content.columns)
    else:
        markup = Template(content.html, html.escape).render(letter) if content.html else ""
        text = Template(content.text).render(letter) if content.text else text_of(markup)
    return _UNPRINTABLE.sub(" ", text), _UNPRINTABLE.sub(" ", markup)
