"""Mails to deliver: destinations for a mail server, and records to send by them."""

from typing import Any

from muxly_dagster.destinations.email import Email
from muxly_dagster_tests.peers.mail import MailServer

PASSWORD = "s3cret-pa\u00df-of-muxly"
DEALS = [
    {"id": 1, "name": "Acme", "amount": 12500, "owner": "ada@acme.example"},
    {"id": 2, "name": "Bolt", "amount": -3, "owner": "bob@acme.example"},
]
ROWS = [{"id": n, "to": f"p{n}@acme.example"} for n in range(1, 5)]


def email(server: MailServer, **fields: Any) -> Email:
    """A destination from fields as they stand in muxly.yaml, for a server."""
    given: dict[str, Any] = {"host": "127.0.0.1", "port": server.port, "security": server.security, "from": "Muxly <muxly@acme.example>"}
    if server.certificate:
        given["ca_file"] = str(server.certificate.cert)
    if server.users:
        given |= dict(zip(("username", "password"), next(iter(server.users.items())), strict=True))
    return Email(**{**given, "to": "ada@acme.example", **fields})


def email_to_each(server: Any, **fields: Any) -> Email:
    """A destination for a server; each record goes to an address of its own."""
    given = {"host": "127.0.0.1", "port": server.port, "security": "none", "from": "muxly@acme.example", "to": "{{ to }}"}
    return Email(**{**given, "subject": "{{ id }}", "text": "deal {{ id }}", **fields})
