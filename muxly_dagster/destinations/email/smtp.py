"""A connection to a mail server (SMTP, RFC 5321), and what its answers mean for a mail.

Replies of 4xx pass, those of 5xx stay; which of them are about the mail, about its recipients or about us depends on the command.
"""

import re
import smtplib
import ssl
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import NoReturn, Self

from muxly_dagster.destinations.email.signing_in import Server, secrets, sign_in
from muxly_dagster.errors import ConfigurationError, MuxlyError, RecordRefused, RetryLater, SignInError
from muxly_dagster.http import Redaction

_PATIENCE_AFTER_DATA = 10
"""So many times as long is waited for the answer to a whole mail: giving up there means to send it twice (RFC 5321, 4.5.3.2.6)."""

_EXCERPT = 300
_SIGN_IN_CODES = frozenset({530, 534, 535, 538})
_DOT = re.compile(rb"^\.", re.MULTILINE)


class NobodyTook(RecordRefused):
    """The server refuses every recipient of a mail."""


class _Closed(RetryLater):
    """The connection ended before the mail's content was sent, so that nothing of it was taken."""


class Connection:
    """Opens when it is first needed, carries one mail after the other, and opens again when the server has closed it between two."""

    def __init__(self, server: Server) -> None:
        self._server = server
        self._client: smtplib.SMTP | None = None
        self._redaction = Redaction(secrets(server))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._client is not None:
            with suppress(smtplib.SMTPException, OSError):
                self._client.quit()
        self._drop()

    @property
    def is_open(self) -> bool:
        """Whether the next mail goes over a connection that stands."""
        return self._client is not None

    def send(self, sender: str, recipients: Sequence[str], content: bytes) -> dict[str, str]:
        """Send one mail (lines end in CRLF); answers which recipients were refused, and why.

        Raises NobodyTook, RecordRefused where the mail itself is refused, RetryLater, SignInError, ConfigurationError. After RetryLater
        the mail may have been taken all the same.
        """
        if self._client is not None:
            # Servers close a connection after some mails, or some time: nobody has to hear of that.
            with suppress(_Closed):
                return self._send(self._client, sender, recipients, content)
        return self._send(self.open(), sender, recipients, content)

    # ---- opening ---------------------------------------------------------------------------------------------------

    def open(self) -> smtplib.SMTP:
        """Connect, make sure of the server and sign in. Raises RetryLater, SignInError, ConfigurationError."""
        self._drop()
        try:
            with self._explained():
                client = self._client = self._connected()
                self._hello(client)
                if self._server.security == "starttls":
                    self._start_tls(client)
                if self._server.tokens is not None or self._server.username:
                    self._sign_in(client)
        except MuxlyError:
            self._drop()  # a connection that is not signed in is none
            raise
        return client

    def _connected(self) -> smtplib.SMTP:
        server = self._server
        if server.security == "tls":
            return smtplib.SMTP_SSL(server.host, server.port, timeout=server.timeout, context=self._context())
        return smtplib.SMTP(server.host, server.port, timeout=server.timeout)

    def _context(self) -> ssl.SSLContext:
        try:
            return ssl.create_default_context(cafile=self._server.ca_file or None)
        except OSError as error:
            what = f"the certificates of `ca_file` cannot be read: {error.strerror or error}"
            raise ConfigurationError(what, do="name a file of certificates in PEM form", where=self._server.ca_file) from None

    def _hello(self, client: smtplib.SMTP) -> None:
        code, said = client.ehlo()
        if not 200 <= code < 300:
            code, said = client.helo()
        if not 200 <= code < 300:
            self._unwelcome(code, said)

    def _start_tls(self, client: smtplib.SMTP) -> None:
        if not client.has_extn("starttls"):
            raise ConfigurationError(
                "the server offers no STARTTLS, so the mails would go unencrypted",
                do="set `security: tls` with the port for it (465); `security: none` only in a network that you trust",
                where=self._server.name,
            )
        client.starttls(context=self._context())
        self._hello(client)  # what was said before TLS counts for nothing (RFC 3207, 4.2)

    def _sign_in(self, client: smtplib.SMTP) -> None:
        code, said = sign_in(client, self._server, self._redaction)
        if code in (235, 503):  # 503: signed in already, by the certificate or the network
            return
        if code < 500:
            raise self._later(code, said)
        what = f"the server refuses the sign-in of {self._server.username}: {self._words(code, said)}"
        do = "correct `username` and `password`; many providers want a password made for this application alone"
        if self._server.tokens is not None:
            do = "authorize the account again, or correct `username`"
        raise SignInError(what, do=do, where=self._server.name)

    # ---- a mail ----------------------------------------------------------------------------------------------------

    def _send(self, client: smtplib.SMTP, sender: str, recipients: Sequence[str], content: bytes) -> dict[str, str]:
        with self._explained():
            refused = self._envelope(client, sender, recipients, len(content))
            code, said = client.docmd("DATA")
            if code != 354:
                self._refused(client, code, said)
            assert client.sock is not None
            client.sock.settimeout(self._server.timeout * _PATIENCE_AFTER_DATA)
            try:
                client.send(_DOT.sub(b"..", content) + (b".\r\n" if content.endswith(b"\r\n") else b"\r\n.\r\n"))
                code, said = client.getreply()
                if code in (421, -1):
                    raise self._later(code, said)
            except (smtplib.SMTPServerDisconnected, _Closed) as error:
                self._drop()
                what = error.what if isinstance(error, _Closed) else "the connection broke while a mail was sent"
                if isinstance(error.__context__, TimeoutError):
                    what = f"there was no answer to a whole mail within {self._server.timeout * _PATIENCE_AFTER_DATA:g} seconds"
                do = "try again: if the server had taken the mail, it comes once more with the same Message-ID"
                raise RetryLater(what, do=do, where=self._server.name) from None
            client.sock.settimeout(self._server.timeout)
            if not 200 <= code < 300:
                self._refused(client, code, said)
        return refused

    def _envelope(self, client: smtplib.SMTP, sender: str, recipients: Sequence[str], size: int) -> dict[str, str]:
        """MAIL and RCPT; answers the recipients that are refused, where others are not."""
        options = [f"SIZE={size}"] if client.has_extn("size") else []
        utf8 = not all(map(str.isascii, (sender, *recipients)))  # RFC 6531
        if utf8 and not client.has_extn("smtputf8"):
            raise NobodyTook(f"the server knows only ASCII addresses, not {', '.join(recipients)}")
        code, said = client.mail(sender, [*options, *(["SMTPUTF8"] if utf8 else [])])
        if code in (552, 523):  # larger than the server takes (RFC 1870, 6.1)
            self._refused(client, code, said)
        if code >= 500 and code not in _SIGN_IN_CODES:
            self._reset(client)
            what = f"the server refuses the sender {sender}: {self._words(code, said)}"
            raise ConfigurationError(what, do="set `from` to an address that this account may send for", where=self._server.name)
        if not 200 <= code < 300:
            self._refused(client, code, said)
        refused: dict[str, str] = {}
        for recipient in recipients:
            code, said = client.rcpt(recipient)
            if code >= 500 and code not in (*_SIGN_IN_CODES, 552):  # 552 means 452 here: too many recipients (RFC 5321, 4.5.3.1.10)
                refused[recipient] = self._words(code, said)
            elif not 200 <= code < 300:
                self._refused(client, 452 if code == 552 else code, said)
        if len(refused) == len(recipients):
            self._reset(client)
            raise NobodyTook("; ".join(f"{recipient}: {words}" for recipient, words in refused.items()))
        return refused

    def _refused(self, client: smtplib.SMTP, code: int, said: bytes) -> NoReturn:
        """Raise what a reply that is no success means, and leave the connection ready for another mail."""
        later = self._later(code, said) if code < 500 else None
        if isinstance(later, _Closed):
            self._drop()
        else:
            self._reset(client)
        if later is not None:
            raise later
        if code in _SIGN_IN_CODES:
            do = "set `username` and `password`" if not self._server.username else "correct `username` and `password`"
            raise SignInError(f"the server wants a sign-in: {self._words(code, said)}", do=do, where=self._server.name)
        raise RecordRefused(self._words(code, said))

    def _reset(self, client: smtplib.SMTP) -> None:
        try:
            client.rset()
        except (smtplib.SMTPException, OSError):
            self._drop()

    # ---- answers and faults ----------------------------------------------------------------------------------------

    def _later(self, code: int, said: bytes) -> RetryLater:
        """A reply of 4xx, or none at all. 421 announces that the server closes the connection (RFC 5321, 3.8)."""
        if code == 421:
            return _Closed(f"the server is closing: {self._words(code, said)}", do="try again later", where=self._server.name)
        if code == -1:
            return _Closed(
                "the server answered what is no SMTP", do="try again; if it stays, correct `host` and `port`", where=self._server.name
            )
        return RetryLater(f"the server asks for patience: {self._words(code, said)}", do="try again later", where=self._server.name)

    def _unwelcome(self, code: int, said: bytes) -> NoReturn:
        """Raise what it means that a server does not greet us."""
        if code == -1:
            what = "what answers there is no mail server: its first words are no SMTP"
            raise ConfigurationError(what, do="correct `host`, `port` and `security`", where=self._server.name)
        if code < 500:
            raise self._later(code, said)
        what = f"the server turns this machine away: {self._words(code, said)}"
        raise ConfigurationError(what, do="ask whoever runs it, or use another one", where=self._server.name)

    def _words(self, code: int, said: bytes) -> str:
        return f"{code} {self._redaction.excerpt(said, _EXCERPT)}".strip()

    @contextmanager
    def _explained(self) -> Iterator[None]:
        """Turn what smtplib and the network raise into Muxly's errors. Originals are not kept: some quote what was sent."""
        server = self._server
        try:
            yield
        except MuxlyError as error:
            if isinstance(error, _Closed) or not isinstance(error, RetryLater | RecordRefused):
                self._drop()
            raise
        except ssl.SSLCertVerificationError as error:
            self._drop()
            what = f"the server's certificate is not accepted: {error.verify_message}"
            do = "correct `host`; name the certificates to trust in `ca_file` where the server has one of your own"
            raise ConfigurationError(what, do=do, where=server.name) from None
        except smtplib.SMTPResponseException as error:  # the greeting, or the answer to STARTTLS
            self._drop()
            self._unwelcome(error.smtp_code, _bytes(error.smtp_error))
        except (smtplib.SMTPException, OSError) as error:
            self._drop()
            raise _unreachable(error, server) from None

    def _drop(self) -> None:
        if self._client is not None:
            self._client.close()
            self._client = None


def _unreachable(error: Exception, server: Server) -> MuxlyError:
    """A connection that did not come about, or broke."""
    if isinstance(error, ssl.SSLError) and not isinstance(error, ssl.SSLEOFError | ssl.SSLZeroReturnError):
        do = "correct `port` and `security`: `tls` is common at port 465, `starttls` at 587"
        return ConfigurationError(f"the server does not speak TLS there: {error.reason or error}", do=do, where=server.name)
    cause = error.__context__ if isinstance(error, smtplib.SMTPServerDisconnected) else error
    do = "see whether the server is up and `host` and `port` are right; the next run goes on from here"
    if isinstance(cause, TimeoutError):
        return _Closed(f"no answer within {server.timeout:g} seconds", do=do, where=server.name)
    if isinstance(cause, OSError) and not isinstance(cause, smtplib.SMTPException):
        return _Closed(f"there is no connection to the mail server: {cause.strerror or cause}", do=do, where=server.name)
    return _Closed("the server closed the connection", do=do, where=server.name)


def _bytes(said: bytes | str) -> bytes:
    return said if isinstance(said, bytes) else said.encode()
