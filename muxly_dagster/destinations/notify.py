"""The `notify` destination: short messages to the hundred and more services that Apprise knows.

Apprise says of a message that it was sent or that it was not, and nothing else: https://github.com/caronc/apprise
"""

import contextlib
import html
import logging
import threading
import warnings
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any, ClassVar, Literal
from urllib.parse import SplitResult, parse_qsl, unquote, urlsplit

from pydantic import ConfigDict, Field, SecretStr

from muxly_dagster.destination import Delivery, Destination, Guarantee, Message, Receipt
from muxly_dagster.errors import ConfigurationError, MuxlyError, RecordRefused, RetryLater
from muxly_dagster.http import Redaction
from muxly_dagster.messages import (
    Escape,
    Group,
    Letter,
    Settled,
    Template,
    TemplateText,
    check_templates,
    deleted,
    letters,
    markdown,
    shorten,
    template_of,
)
from muxly_dagster.resource import CheckResult

AT_ONCE = 100
"""Messages that one delivery sends: what is confirmed after so many is not sent again after a crash."""

_LOCAL = frozenset(
    {"blink1", "dbus", "fcm", "gio", "glib", "gnome", "growl", "kde", "macosx", "qt", "rsyslog", "syslog", "vapid", "windows"}
)
"""What Apprise does on the machine itself, or with files on it, or without hearing whether it arrived."""

_LOGGERS = ("apprise", "urllib3.connectionpool", "urllib3.connection", "requests")
_ESCAPES: Mapping[str, Escape | None] = {"text": None, "markdown": markdown, "html": html.escape}
_SHORTEST = 4
_REASON = 300


@dataclass(frozen=True, slots=True)
class _Service:
    """One address, understood: Apprise's object for it, its name without secrets, the longest body and title in characters."""

    number: int
    name: str
    sender: Any
    most_body: int
    most_title: int


class Notify(Destination):
    """Telegram, Discord, Pushover, ntfy, Matrix, PagerDuty and what else Apprise knows."""

    type: ClassVar[str] = "notify"
    title: ClassVar[str] = "Notifications (Apprise)"
    batch_rows: ClassVar[int] = 2_000
    guarantee: ClassVar[Guarantee] = "at least once"
    templates: ClassVar[tuple[str, ...]] = ("title", "body")
    example: ClassVar[Mapping[str, Any]] = {"body": "New: {{ key }}"}

    # An address holds tokens and passwords: pydantic must not quote it.
    model_config = ConfigDict(hide_input_in_errors=True)

    urls: tuple[SecretStr, ...] = Field(
        min_length=1, description="Apprise's addresses, such as `tgram://TOKEN/CHAT`. Kept like passwords, because they hold them."
    )
    heading: TemplateText = Field("", alias="title", description="The message's title: a template.", examples=["{{ table }}"])
    body: TemplateText = Field(description="The message: a template.")
    format: Literal["text", "markdown", "html"] = Field("text", description="What the templates are written in.")
    group: Group | None = Field(None, description="Many records in one message.", examples=[{"by": ["owner"], "most": 50}])
    deletes: bool = Field(False, description="Whether a deleted record is a message too; the template sees `op`.")
    schemes: tuple[str, ...] = Field(
        (),
        description="The kinds of address that are allowed. Without: everything that Apprise sends encrypted to another machine.",
        examples=[["tgram", "ntfys"]],
    )

    def deliver(self, delivery: Delivery) -> Receipt:
        """Send one message after the other, up to 100 at a time, each to every address.

        A message is accepted when one address took it: sending it again would repeat it there. The receipt names the others.
        """
        check_templates(delivery, {"title": self.heading, "body": self.body})
        services = self._understood()
        settled, error, sent = Settled(delivery), None, 0
        missed: dict[str, int] = {}
        silent = frozenset() if self.deletes else deleted(delivery)
        settled.accept(silent)
        first = settled.first_open
        for at, letter in enumerate(letters(delivery, self.group, silent)):
            # The message with the first change is always among them, so that every delivery confirms something.
            if at >= AT_ONCE and first not in letter.seqs:
                continue
            try:
                failed = self._send(services, *self._made(delivery, letter))
            except RecordRefused as refused:
                settled.refuse(letter.seqs, refused.what)
                continue
            except MuxlyError as trouble:
                error = trouble
                break
            settled.accept(letter.seqs)
            sent += 1
            for name in failed:
                missed[name] = missed.get(name, 0) + 1
        detail: dict[str, Any] = {"messages": sent, "services": [service.name for service in services]}
        return settled.receipt(detail | ({"not_taken": missed} if missed else {}), error)

    def render(self, delivery: Delivery) -> Sequence[Message]:
        """Title and body of each message."""
        check_templates(delivery, {"title": self.heading, "body": self.body})
        found = []
        for letter in letters(delivery, self.group, frozenset() if self.deletes else deleted(delivery)):
            try:
                text = "\n".join(part for part in self._made(delivery, letter, escaped=False) if part)
            except RecordRefused as refused:
                text = f"(refused: {refused.what})"
            found.append(Message(letter.seqs, text))
        return found

    def check(self) -> CheckResult:
        """Read the addresses. Whether they work is only seen by sending."""
        try:
            names = ", ".join(service.name for service in self._understood())
        except MuxlyError as error:
            return CheckResult.failed("reading the addresses", error)
        return CheckResult("ok", "reading the addresses", f"{names}; whether they work is only seen by sending, which was not done")

    def public_name(self, table: str) -> str:
        """The kinds of address; the rest may be secret."""
        return ", ".join(dict.fromkeys(_scheme(url.get_secret_value()) or "?" for url in self.urls))

    # ---- messages ----------------------------------------------------------------------------------------------------

    def _made(self, delivery: Delivery, letter: Letter, *, escaped: bool = True) -> tuple[str, str]:
        """Title and body. Raises RecordRefused where they cannot be made."""
        escape = _ESCAPES[self.format] if escaped else None
        title, body = (
            str(Template(template_of(delivery, letter, name, own), escape).render(letter))
            for name, own in (("title", self.heading), ("body", self.body))
        )
        if not body.strip():
            raise RecordRefused("the message is empty: the template `body` gives nothing for this record")
        return " ".join(title.split()), body

    def _send(self, services: Sequence[_Service], title: str, body: str) -> list[str]:
        """Send to every address: the names of those that did not take it. Raises RetryLater where none did."""
        failed: dict[str, str] = {}
        for service in services:
            with _overheard(self._redaction()) as said:
                heading = title if service.most_title == 0 else shorten(title, service.most_title)
                room = service.most_body - (len(heading) + 2 if service.most_title == 0 and heading else 0)
                try:
                    taken = service.sender.notify(body=shorten(body, max(1, room)), title=heading, body_format=self.format)
                except Exception as error:  # whatever one of a hundred plugins runs into
                    taken = False
                    said.append(type(error).__name__)
            if not taken:
                failed[service.name] = said[-1] if said else "no reason was given"
        if len(failed) == len(services):
            reasons = "; ".join(f"{name}: {reason}" for name, reason in failed.items())
            do = "check the addresses in `urls` and their services; it is tried again"
            raise RetryLater(f"nobody took the message ({reasons})", do=do, where=self.public_name(""))
        return list(failed)

    # ---- addresses -----------------------------------------------------------------------------------------------------

    def _understood(self) -> list[_Service]:
        """What the addresses mean. Raises ConfigurationError for one that is unknown or not allowed."""
        import apprise
        from apprise.common import PersistentStoreMode

        encrypted = _encrypted_and_elsewhere()
        asset = apprise.AppriseAsset(
            async_mode=False,  # with no time limit of its own, it sends in this thread, whose words are kept from the logs
            http_redirects=False,  # an address with a token in it goes where it says, and nowhere else
            image_path_mask=False,
            pem_autogen=False,
            pgp_autogen=False,
            service_timeout=0,
            storage_mode=PersistentStoreMode.MEMORY.value,
        )
        allowed = {scheme.lower().removesuffix("://") for scheme in self.schemes} or encrypted
        found = []
        for number, url in enumerate(self.urls, 1):
            text = url.get_secret_value()
            with _overheard(self._redaction()):
                one = apprise.Apprise.instantiate(text, asset=asset) if _scheme(text) in {*allowed, "https"} else None
            kinds = _schemes(one) if one is not None else set[str]()
            if one is None or not (kinds.intersection(allowed) if _scheme(text) == "https" else True):
                raise _not_an_address(number, _scheme(text), allowed)
            sender = apprise.Apprise([one], asset)
            found.append(_Service(number, f"{one.service_name} ({number})", sender, int(one.body_maxlen), int(one.title_maxlen)))
        return found

    def _redaction(self) -> Redaction:
        secrets: list[str] = []
        for url in self.urls:
            text = url.get_secret_value()
            parts = _split(text)
            values = (value for _, value in parse_qsl(parts.query))
            pieces = [*parts.netloc.rpartition("@")[0].split(":"), *parts.path.split("/"), *values]
            # Many services put a token where a host would stand; a host that answers nobody's questions is no loss.
            pieces.append(parts.netloc.rpartition("@")[2].partition(":")[0])
            secrets += [text, *(form for piece in pieces if len(piece) >= _SHORTEST for form in (piece, unquote(piece)))]
        return Redaction(secrets)


def _scheme(url: str) -> str:
    return _split(url).scheme.lower() if "://" in url else ""


def _split(url: str) -> SplitResult:
    """The parts of an address. What is no URL, such as one with a host in brackets, is a scheme and a path: the error would quote it."""
    try:
        return urlsplit(url)
    except ValueError:
        scheme, _, rest = url.partition("://")
        return SplitResult(scheme, "", rest, "", "")


def _schemes(plugin: Any, *names: str) -> set[str]:
    """The kinds of address of one of Apprise's plugins."""
    found: set[str] = set()
    for name in names or ("secure_protocol", "protocol"):
        said = getattr(plugin, name, None) or ()
        found |= {said} if isinstance(said, str) else {*said}
    return found


@lru_cache(maxsize=1)
def _encrypted_and_elsewhere() -> frozenset[str]:
    """The kinds of address that Apprise sends encrypted to another machine."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # loading a hundred plugins, some of them imports what Python will give up
        from apprise.manager_plugins import NotificationManager

        plugins = NotificationManager().plugins()  # type: ignore[no-untyped-call]
        return frozenset(scheme for plugin in plugins for scheme in _schemes(plugin, "secure_protocol")) - _LOCAL


def _not_an_address(number: int, scheme: str, allowed: Collection[str]) -> ConfigurationError:
    where = f"urls[{number - 1}]"
    if scheme and scheme not in allowed and scheme != "https":
        encrypted = f"{scheme}s" if f"{scheme}s" in allowed else ""
        do = f"use {encrypted}://" if encrypted else f"list {scheme} in `schemes` if it is meant"
        return ConfigurationError(f"{scheme}:// is not allowed", do=do, where=where)
    return ConfigurationError("Apprise cannot read this address", do="compare it with Apprise's page of the service", where=where)


# ---- logs --------------------------------------------------------------------------------------------------------------


@dataclass(eq=False)
class _Ear(logging.Filter):
    """Keeps what one thread's sending says away from logs: addresses stand in it, and tokens in those."""

    redaction: Redaction
    thread: int = field(default_factory=threading.get_ident)
    said: list[str] = field(default_factory=list)

    def filter(self, record: logging.LogRecord) -> bool:
        if record.thread not in (None, self.thread):
            return True
        if record.levelno >= logging.WARNING:
            self.said.append(shorten(" ".join(self.redaction(record.getMessage()).split()), _REASON))
        return False


@contextlib.contextmanager
def _overheard(redaction: Redaction) -> Iterator[list[str]]:
    """What is said of the sending within, without secrets: nothing of it is logged."""
    ear = _Ear(redaction)
    loggers = [logging.getLogger(name) for name in _LOGGERS]
    for logger in loggers:
        logger.addFilter(ear)
    try:
        yield ear.said
    finally:
        for logger in loggers:
            logger.removeFilter(ear)
