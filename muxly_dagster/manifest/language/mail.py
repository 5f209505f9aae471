"""A message in the form that mail travels in (RFC 5322, MIME), made of an action's inputs."""

import base64
import binascii
from collections.abc import Mapping
from email.message import EmailMessage
from email.policy import SMTP
from typing import Any

_HEADERS = {
    "from": "From",
    "to": "To",
    "cc": "Cc",
    "bcc": "Bcc",
    "reply_to": "Reply-To",
    "subject": "Subject",
    "in_reply_to": "In-Reply-To",
    "references": "References",
}
_MEDIA_TYPE = "application/octet-stream"


def mime(value: Any) -> bytes:
    """The message as bytes, with CRLF. Addresses are texts or lists of texts.

    `text` and `html` are two forms of one body; an attachment has `name`, `content` (bytes, or text in base64) and `media_type`. Fields
    that belong to no message are left out. Raises ValueError for what would not be one header (a line break in a subject) or cannot be
    attached.
    """
    if not isinstance(value, Mapping):
        raise ValueError("a message is made of an object with `to`, `subject` and `text`")
    message = EmailMessage(policy=SMTP)
    for name, header in _HEADERS.items():
        given = value.get(name)
        if given is None or given == "" or given == []:
            continue
        said = ", ".join(map(str, given)) if isinstance(given, list | tuple) else str(given)
        if any(sign in said for sign in "\r\n\0"):
            raise ValueError(f"`{name}` holds a line break, which would begin another header")
        message[header] = said
    text, html = value.get("text"), value.get("html")
    if html is None:
        message.set_content(str(text or ""))
    elif text is None:
        message.set_content(str(html), subtype="html")
    else:
        message.set_content(str(text))
        message.add_alternative(str(html), subtype="html")
    for attachment in value.get("attachments") or []:
        _attach(message, attachment)
    return message.as_bytes()


def _attach(message: EmailMessage, attachment: Any) -> None:
    if not isinstance(attachment, Mapping) or not attachment.get("name") or "content" not in attachment:
        raise ValueError("an attachment is an object with `name` and `content`")
    content, name = attachment["content"], str(attachment["name"])
    if not isinstance(content, bytes):
        try:
            content = base64.b64decode(str(content), validate=True)
        except (binascii.Error, ValueError):
            raise ValueError(f"the content of the attachment {name!r} is no base64") from None
    kind, _, subtype = str(attachment.get("media_type") or _MEDIA_TYPE).partition("/")
    if any(sign in f"{name}{kind}{subtype}" for sign in "\r\n\0") or not subtype:
        raise ValueError(f"the attachment {name!r} has no proper name or media type")
    message.add_attachment(content, maintype=kind, subtype=subtype, filename=name)
