"""The `email` destination: records as mails, one for each or many in one, sent by SMTP.

A mail's Message-ID is made of its records, so that one that comes twice after a crash is known for the same.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from email.headerregistry import Address
from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import BeforeValidator, Field, SecretStr, field_validator, model_validator

from muxly_dagster.auth import Bearer, CustomAuth, NoAuth, OAuth2, ServiceAccount, TokenSource
from muxly_dagster.destination import Delivery, Destination, Guarantee, Message, Receipt
from muxly_dagster.destinations.email.addressing import Mail, Recipients, addressed, addresses, mails
from muxly_dagster.destinations.email.composing import Content, compose, written
from muxly_dagster.destinations.email.signing_in import GivenToken, Security, Server
from muxly_dagster.destinations.email.smtp import Connection, NobodyTook
from muxly_dagster.errors import ConfigurationError, MuxlyError, RecordRefused, RetryLater
from muxly_dagster.http import sign_in
from muxly_dagster.messages import Group, Letter, Settled, Template, TemplateText, check_templates, deleted, letters, require_columns
from muxly_dagster.project_paths import InProject
from muxly_dagster.resource import CheckResult

_PORTS: dict[Security, int] = {"starttls": 587, "tls": 465, "none": 25}
_GMAIL = "https://mail.google.com/"
_AT_A_TIME = 50
"""After so many mails the delivery answers for what is done: a crash can repeat no more than these."""

_TROUBLES = 5
"""So many mails that the server asked patience for: it means all of them."""

_REFUSALS_OF_NOBODY = 20
"""So many refusals of recipients that are the same for every record say that `to` is wrong, not the records."""

_SHOWN = 20


def _listed(value: object) -> object:
    return [value] if isinstance(value, str) else value


AddressTemplates = Annotated[list[TemplateText], BeforeValidator(_listed)]
TokenAuth = Annotated[NoAuth | Bearer | OAuth2 | ServiceAccount | CustomAuth, Field(discriminator="kind")]


@dataclass(slots=True)
class _Done:
    """What a delivery has done so far, for its receipt."""

    mails: int = 0
    nobody: int = 0
    last_refusal: str = ""
    troubles: int = 0
    message_ids: list[str] = field(default_factory=list)
    refused_recipients: dict[str, str] = field(default_factory=dict)


class Email(Destination):
    """Mails sent by SMTP."""

    type: ClassVar[str] = "email"
    title: ClassVar[str] = "Email"
    guarantee: ClassVar[Guarantee] = "at least once, with the same id"
    batch_rows: ClassVar[int] = 5_000
    templates: ClassVar[tuple[str, ...]] = ("subject", "html", "text")
    example: ClassVar[Mapping[str, Any]] = {
        "username": None,
        "password": None,
        "to": ["ops@acme.example"],
        "subject": "{{ table }}: {{ key }}",
    }

    host: str = Field(
        pattern=r"^[A-Za-z0-9._:\[\]-]+$", description="The mail server, such as smtp.acme.example.", examples=["smtp.acme.example"]
    )
    port: int | None = Field(None, ge=1, le=65535, description="Its port; by `security` 587 (starttls), 465 (tls) or 25 (none).")
    security: Security = Field(
        "starttls",
        description="starttls: encryption is begun after connecting, and required. tls: encrypted from the first byte. "
        "none: everything goes unencrypted, a password too.",
    )
    ca_file: Annotated[str, InProject()] = Field(
        "", description="A file of certificates (PEM) to trust in place of the system's, for a server with one of your own."
    )
    username: str = Field("", description="The user to sign in as; without it, nobody signs in.")
    password: SecretStr = Field(SecretStr(""), description="The user's password; many providers want one made for this application alone.")
    auth: TokenAuth = Field(
        NoAuth(), description="Sign in with an access token in place of a password (XOAUTH2): `oauth2`, `service_account` or `bearer`."
    )
    from_: str = Field(alias="from", description="The sender.", examples=["Muxly <muxly@acme.example>"])
    to: AddressTemplates = Field([], description="Recipients, one or a list; each may come from the record: `{{ owner_email }}`.")
    cc: AddressTemplates = Field([], description="Recipients of a copy.")
    bcc: AddressTemplates = Field([], description="Recipients whom the others do not see.")
    reply_to: AddressTemplates = Field([], description="Where answers go; to the sender unless told otherwise.")
    subject: TemplateText = Field(
        "", description="Template of the subject; the table with the key or the number of records unless told otherwise."
    )
    html: TemplateText = Field("", description="Template of the mail in HTML; values are escaped.")
    text: TemplateText = Field(
        "", description="Template of the mail in plain text; made of `html` where only that is given. Without both, the mail shows a table."
    )
    columns: list[str] = Field(
        [], description="The columns of the table and of the attached file; all that hold something unless told otherwise."
    )
    attach: Literal["csv"] | None = Field(None, description="csv: the records of the mail go along as a file.")
    group: Group | None = Field(
        None,
        description="Many records in one mail; without it, each has its own. Records with different recipients never share one.",
        examples=[{"by": ["owner_email"], "most": 200}],
    )
    deletes: bool = Field(False, description="Whether a record that was deleted makes a mail too.")
    timeout: float = Field(60.0, gt=0, description="Seconds to wait for an answer; ten times as long once a whole mail was sent.")

    @field_validator("from_")
    @classmethod
    def _one_sender(cls, sender: str) -> str:
        if len(addresses(sender)) != 1:
            raise ValueError("is not one address such as muxly@acme.example")
        return sender

    @field_validator("to", "cc", "bcc", "reply_to")
    @classmethod
    def _sound(cls, listed: list[str]) -> list[str]:
        for text in listed:
            if "{" not in text and not addresses(text):
                raise ValueError("is no address such as ada@acme.example")
        return listed

    @model_validator(mode="after")
    def _complete(self) -> Self:
        if not (self.to or self.cc or self.bcc):
            raise ValueError("there is no recipient: set `to`")
        if not isinstance(self.auth, NoAuth) and (self.password.get_secret_value() or not self.username):
            raise ValueError("`auth` goes with a `username` and without a `password`")
        if isinstance(self.auth, NoAuth) and bool(self.username) != bool(self.password.get_secret_value()):
            raise ValueError("`username` and `password` go together")
        return self

    def deliver(self, delivery: Delivery) -> Receipt:
        """Send the mails, one after the other over one connection; answers for those that are settled when it cannot go on."""
        self._check_columns(delivery)
        settled, done = Settled(delivery), _Done()
        first = settled.first_open
        error: MuxlyError | None = None
        with self._connection() as connection:
            for letter, recipients in self._mails(delivery, settled):
                # The mail with the first change is always among them, so that every delivery confirms something.
                if done.mails >= _AT_A_TIME and first not in letter.seqs:
                    continue
                try:
                    self._send(connection, delivery, letter, recipients, settled, done)
                except RetryLater as later:
                    error, done.troubles = error or later, done.troubles + 1
                    # What is wrong with one mail (a full mailbox) keeps no other; what is wrong with the server keeps all.
                    if not connection.is_open or done.troubles == _TROUBLES:
                        break
                except MuxlyError as final:
                    error = final
                    break
                if done.nobody == _REFUSALS_OF_NOBODY and not done.mails and not self._by_record:
                    what = f"the server takes no mail for {self.public_name(delivery.table)}: {done.last_refusal}"
                    raise ConfigurationError(what, do="correct `to`", where=self.host)
            else:
                if done.mails >= _AT_A_TIME:
                    error = None  # the mails that are left go at once; whoever must wait is asked again with the last of them
        return settled.receipt(self._detail(done), error)

    def check(self) -> CheckResult:
        """Connect and sign in, as for a mail; none is sent."""
        server = self._server()
        tried = f"connect to {server.name}" + (f" and sign in as {self.username}" if self.username else "")
        try:
            with self._connection() as connection:
                connection.open()
        except MuxlyError as error:
            return CheckResult.failed(tried, error)
        return CheckResult("ok", tried, "unencrypted; no mail was sent" if self.security == "none" else "encrypted; no mail was sent")

    def render(self, delivery: Delivery) -> Sequence[Message]:
        """Each mail's headers and its text."""
        self._check_columns(delivery)
        settled = Settled(delivery)
        return [Message(letter.seqs, self._shown(delivery, letter, recipients)) for letter, recipients in self._mails(delivery, settled)]

    def public_name(self, table: str) -> str:
        """The recipients."""
        return ", ".join(dict.fromkeys([*self.to, *self.cc, *self.bcc]))

    # ---- from records to mails -------------------------------------------------------------------------------------

    def _check_columns(self, delivery: Delivery) -> None:
        named = {name: getattr(self, name) for name in ("to", "cc", "bcc", "reply_to", *self.templates)}
        check_templates(delivery, named)
        require_columns(self.columns, delivery, "columns")

    @property
    def _by_record(self) -> bool:
        """Whether recipients come from the records."""
        return bool(Template([self.to, self.cc, self.bcc]).names)

    def _mails(self, delivery: Delivery, settled: Settled) -> list[Mail]:
        """The mails that the records make; what is deleted is settled without one."""
        gone = frozenset() if self.deletes else deleted(delivery)
        settled.accept(gone)
        # All that may share a mail first, then apart by recipients.
        group = self.group and self.group.model_copy(update={"most": self.batch_rows})
        return mails(letters(delivery, group, gone), self._recipients, self.group.most if self.group else 1, settled)

    def _recipients(self, letter: Letter) -> Recipients:
        found = Recipients(*(addressed(getattr(self, name), letter, name) for name in Recipients._fields))
        if not found.envelope:
            raise RecordRefused("it has no recipient: `to` gives nothing for it")
        return found

    def _content(self, delivery: Delivery, letter: Letter) -> Content:
        said = {"subject": self.subject, "html": self.html, "text": self.text}
        own = delivery.templates.get(letter.rule, {})
        if own.get("html") or own.get("text"):
            said |= {"html": "", "text": ""}  # a rule's text beside the destination's HTML would be two different mails
        said |= {name: value for name, value in own.items() if name in said and value}
        return Content(**said, columns=tuple(self.columns), csv=self.attach == "csv")

    def _shown(self, delivery: Delivery, letter: Letter, recipients: Recipients) -> str:
        try:
            mail = compose(delivery, letter, recipients, self._sender, self._content(delivery, letter))
        except RecordRefused as error:
            return f"no mail: {error.what}"
        headers = [f"{name}: {mail[name]}" for name in ("From", "To", "Cc", "Reply-To", "Subject") if mail[name]]
        if recipients.bcc:
            headers.insert(2, f"Bcc: {', '.join(map(str, recipients.bcc))}")
        body: Any = mail.get_body(("plain",))
        files = [f"[{part.get_filename()}]" for part in mail.iter_attachments()]
        return "\n".join([*headers, "", body.get_content().rstrip(), *files])

    # ---- sending ---------------------------------------------------------------------------------------------------

    @property
    def _sender(self) -> Address:
        return addresses(self.from_)[0]

    def _server(self) -> Server:
        port = self.port or _PORTS[self.security]
        password = self.password.get_secret_value()
        return Server(self.host, port, self.security, self.timeout, self.ca_file, self.username, password, self._tokens())

    def _tokens(self) -> TokenSource | None:
        match self.auth:
            case ServiceAccount():
                return sign_in(self.auth, scopes=self.auth.scopes or [_GMAIL])
            case OAuth2() | CustomAuth():
                return sign_in(self.auth)
            case Bearer():
                return GivenToken(self.auth)
        return None

    def _connection(self) -> Connection:
        return Connection(self._server())

    def _send(
        self, connection: Connection, delivery: Delivery, letter: Letter, recipients: Recipients, settled: Settled, done: _Done
    ) -> None:
        """Send a mail and book what came of it; one that is refused for what it says is taken apart until a record stands alone."""
        try:
            mail = compose(delivery, letter, recipients, self._sender, self._content(delivery, letter))
            refused = connection.send(self._sender.addr_spec, recipients.envelope, written(mail))
        except NobodyTook as error:
            settled.refuse(letter.seqs, error.what)
            done.nobody, done.last_refusal = done.nobody + 1, error.what
        except RecordRefused as error:
            if len(letter.records) == 1:
                settled.refuse(letter.seqs, error.what)
                return
            middle = len(letter.records) // 2
            for half in (letter.records[:middle], letter.records[middle:]):
                self._send(connection, delivery, Letter(half, letter.rule, letter.alike), recipients, settled, done)
        else:
            settled.accept(letter.seqs)
            done.mails += 1
            done.message_ids.append(mail["Message-ID"])
            done.refused_recipients |= refused

    def _detail(self, done: _Done) -> dict[str, Any]:
        detail: dict[str, Any] = {"host": self.host, "mails": done.mails, "message_ids": done.message_ids[-_SHOWN:]}
        if done.refused_recipients:
            detail["refused_recipients"] = dict(list(done.refused_recipients.items())[:_SHOWN])
        return detail
