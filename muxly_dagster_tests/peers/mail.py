"""A mail server (aiosmtpd) on loopback, with certificates of its own, that keeps what it took and says what a test wants it to say."""

import asyncio
import base64
import email
import email.policy
import socket
import threading
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from email.message import EmailMessage
from types import TracebackType
from typing import Any, Literal, Self, cast

from aiosmtpd.smtp import SMTP, AuthResult, Envelope, LoginPassword, Session

from muxly_dagster_tests.peers.certificate import Certificate

HANG_UP = "hang up"
"""In place of a reply: the connection is closed without a word."""

UNHEARD = "unheard"
"""In place of a reply to a whole mail: it is taken, and the connection is closed before anybody hears of it."""

Reply = Callable[[str], str | None]
"""What to answer to a command's argument; None: what a server that has no objection says. 421 closes the connection, too."""


@dataclass(frozen=True, slots=True)
class Taken:
    """A mail that the server took: its envelope, its bytes, and what they say."""

    sender: str
    recipients: tuple[str, ...]
    content: bytes
    encrypted: bool
    user: str

    @property
    def message(self) -> EmailMessage:
        """The mail, read as any mail program reads it."""
        return cast(EmailMessage, email.message_from_bytes(self.content, policy=email.policy.default))

    @property
    def text(self) -> str:
        """Its plain text."""
        return self._body("plain")

    @property
    def html(self) -> str:
        """Its HTML; empty where it has none."""
        return self._body("html")

    def _body(self, kind: Literal["plain", "html"]) -> str:
        part: Any = self.message.get_body((kind,))
        return "" if part is None else part.get_content().replace("\r\n", "\n")

    @property
    def files(self) -> dict[str, bytes]:
        """What is attached, by name."""
        return {str(part.get_filename()): cast(bytes, part.get_payload(decode=True)) for part in self.message.iter_attachments()}


@dataclass
class MailServer:
    """Serves until its block ends. With `users` (passwords by name) or `tokens` it wants a sign-in.

    `came` is every mail that was sent to it, `taken` what it took, and `mailbox` what its owner sees: a mail that comes twice with one
    Message-ID is one mail there, as with the large providers.
    """

    certificate: Certificate | None = None
    security: Literal["starttls", "tls", "none"] = "starttls"
    users: dict[str, str] = field(default_factory=dict)
    tokens: set[str] = field(default_factory=set)
    mail: Reply = lambda sender: None
    rcpt: Reply = lambda recipient: None
    data: Callable[[EmailMessage], str | None] = lambda message: None
    smtputf8: bool = False
    most_bytes: int = 33_554_432
    without: tuple[str, ...] = ()
    """Ways to sign in that it does not offer."""

    trouble: list[str] = field(default_factory=list)
    """What it says to the next who sign in."""

    echo: bool = False
    """Whether it tells everybody the password that was given."""

    def __post_init__(self) -> None:
        self.taken: list[Taken] = []
        self.came: list[EmailMessage] = []
        self.signed_in: list[str] = []
        self.connections = 0
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._sessions: set[asyncio.BaseTransport] = set()

    @property
    def mailbox(self) -> list[Taken]:
        """Each mail once."""
        return list({taken.message["Message-ID"]: taken for taken in self.taken}.values())

    def __enter__(self) -> Self:
        self._thread.start()
        tls = self.certificate.context if self.certificate and self.security == "tls" else None
        serving = self._loop.create_server(self._session, "127.0.0.1", 0, ssl=tls)
        self._server = asyncio.run_coroutine_threadsafe(serving, self._loop).result()
        self.port: int = self._server.sockets[0].getsockname()[1]
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        asyncio.run_coroutine_threadsafe(self._close(), self._loop).result()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    async def _close(self) -> None:
        self._server.close()
        for transport in list(self._sessions):
            cast(asyncio.Transport, transport).abort()
        running = asyncio.all_tasks() - {asyncio.current_task()}
        for task in running:
            task.cancel()
        await asyncio.gather(*running, return_exceptions=True)
        await asyncio.sleep(0)

    def _session(self) -> SMTP:
        outer = self
        self.connections += 1

        class Counted(SMTP):
            def connection_made(self, transport: asyncio.BaseTransport) -> None:
                outer._sessions.add(transport)
                super().connection_made(transport)

            def connection_lost(self, error: Exception | None) -> None:
                if self.transport is not None:
                    outer._sessions.discard(self.transport)
                super().connection_lost(error)

        # aiosmtpd holds nothing but STARTTLS for encryption, and warns of a sign-in without it.
        wants = bool(self.users or self.tokens) and self.security == "starttls"
        return Counted(
            _Handler(self),
            hostname="mail.acme.example",
            ident="Muxly test",
            tls_context=self.certificate.context if self.certificate and self.security == "starttls" else None,
            auth_required=wants,
            auth_require_tls=wants,
            auth_exclude_mechanism=self.without if self.users else ("PLAIN", "LOGIN"),
            authenticator=self._authenticate,
            data_size_limit=self.most_bytes,
            enable_SMTPUTF8=self.smtputf8,
            loop=self._loop,
        )

    def _authenticate(self, server: SMTP, session: Session, envelope: Envelope, mechanism: str, given: Any) -> AuthResult:
        assert isinstance(given, LoginPassword)
        name = given.login.decode()
        if self.trouble:
            return AuthResult(success=False, handled=False, message=self.trouble.pop(0))
        if self.echo:
            shown = f"{given.password.decode()} {base64.b64encode(given.password).decode()}"
            return AuthResult(success=False, handled=False, message=f"535 you said {shown}")
        if self.users.get(name) != given.password.decode():
            return AuthResult(success=False, handled=False, message="535 5.7.8 that is not the password")
        self.signed_in.append(mechanism)
        return AuthResult(success=True, auth_data=name)


class _Handler:
    def __init__(self, outer: MailServer) -> None:
        self._outer = outer
        if outer.tokens:
            self.auth_XOAUTH2 = self._by_token

    async def _by_token(self, server: SMTP, args: list[str]) -> AuthResult:
        packed = args[1] if len(args) > 1 else await server.challenge_auth("")
        said = dict(part.partition("=")[::2] for part in _unpacked(packed).split("\x01") if part)
        if said.get("auth", "").removeprefix("Bearer ") in self._outer.tokens:
            self._outer.signed_in.append("XOAUTH2")
            return AuthResult(success=True, auth_data=said["user"])
        await server.challenge_auth('{"status":"400"}')
        return AuthResult(success=False, handled=False, message="535 5.7.8 that token is not accepted")

    async def handle_MAIL(self, server: SMTP, session: Session, envelope: Envelope, address: str, options: list[str]) -> str:
        envelope.mail_from = address
        return self._said(server, self._outer.mail(address))

    async def handle_RCPT(self, server: SMTP, session: Session, envelope: Envelope, address: str, options: list[str]) -> str:
        said = self._said(server, self._outer.rcpt(address))
        if said.startswith("250"):
            envelope.rcpt_tos.append(address)
        return said

    async def handle_DATA(self, server: SMTP, session: Session, envelope: Envelope) -> str:
        content = cast(bytes, envelope.content)
        recipients = tuple(envelope.rcpt_tos)
        encrypted = session.ssl is not None or cast(asyncio.Transport, server.transport).get_extra_info("ssl_object") is not None
        taken = Taken(str(envelope.mail_from), recipients, content, encrypted, str(session.auth_data or ""))
        self._outer.came.append(taken.message)
        said = await asyncio.to_thread(self._outer.data, taken.message)
        if said in (None, UNHEARD):
            self._outer.taken.append(taken)
        return self._said(server, HANG_UP if said == UNHEARD else said)

    def _said(self, server: SMTP, said: str | None) -> str:
        transport = cast(asyncio.Transport, server.transport)
        if said == HANG_UP:
            transport.abort()
        elif said is not None and said.startswith("421"):
            asyncio.get_running_loop().call_soon(transport.close)
        return said or "250 OK"


def _unpacked(packed: Any) -> str:
    return packed.decode() if isinstance(packed, bytes) else base64.b64decode(packed).decode()


class Talker:
    """Says the same bytes to everybody who connects, whatever it hears, and then hangs up or stays silent until its block ends."""

    def __init__(self, said: bytes, *, stays: bool = False) -> None:
        self._said, self._stays = said, stays
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self._open: list[socket.socket] = []
        self._thread = threading.Thread(target=self._serve, daemon=True)

    def _serve(self) -> None:
        with suppress(OSError):
            while True:
                connection, _ = self._listener.accept()
                with suppress(OSError):
                    connection.sendall(self._said)
                if self._stays:
                    self._open.append(connection)
                else:
                    connection.close()

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        with suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)  # wakes the thread that accepts
        self._listener.close()
        self._thread.join()
        for connection in self._open:
            connection.close()
