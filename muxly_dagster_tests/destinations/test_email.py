"""Mails reach real servers, say what the records say and no more, and every record is answered for."""

import base64
import csv
import datetime as dt
import decimal
import io
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from email.message import EmailMessage
from typing import Any

import pyarrow as pa
import pyarrow.csv
import pytest
from pydantic import ValidationError

from muxly_dagster.destinations.email import Email
from muxly_dagster.errors import ConfigurationError
from muxly_dagster.testing import DestinationContract, delivery
from muxly_dagster_tests.destinations.mailing import DEALS, PASSWORD, email
from muxly_dagster_tests.peers.certificate import Certificate
from muxly_dagster_tests.peers.mail import UNHEARD, MailServer, Taken


@pytest.fixture
def server(certificate: Certificate) -> Iterator[MailServer]:
    with MailServer(certificate, users={"muxly": PASSWORD}) as server:
        yield server


# ---- the contract -----------------------------------------------------------------------------------------------------

_READ: Mapping[str, Callable[[str], Any]] = {
    "id": int,
    "a_bool": lambda text: text == "true",
    "an_int": int,
    "a_float": float,
    "a_decimal": decimal.Decimal,
    "some_bytes": base64.b64decode,
    "a_date": dt.date.fromisoformat,
    "a_time": dt.datetime.fromisoformat,
}


def attached(taken: Taken) -> list[dict[str, Any]]:
    """The records in a mail's CSV file."""
    (content,) = taken.files.values()
    names = next(csv.reader(io.StringIO(content.decode("utf-8-sig"), newline="")))
    rows = pyarrow.csv.read_csv(
        io.BytesIO(content),
        parse_options=pyarrow.csv.ParseOptions(newlines_in_values=True),
        read_options=pyarrow.csv.ReadOptions(block_size=1 << 24),
        convert_options=pyarrow.csv.ConvertOptions(
            strings_can_be_null=True, quoted_strings_can_be_null=False, column_types=dict.fromkeys(names, pa.string())
        ),
    ).to_pylist()
    return [{n: None if v is None else _READ.get(n, str)(v) for n, v in row.items()} for row in rows]


class TestContract(DestinationContract):
    """A reader knows a mail that comes twice by its Message-ID, as the large providers' mailboxes do."""

    keeps = "changes"

    @pytest.fixture
    def destination(self, server: MailServer) -> Email:
        self.server = server
        return email(server, attach="csv")

    def stored(self, destination: Email) -> list[dict[str, Any]]:
        return [record for taken in self.server.mailbox for record in attached(taken)]

    def away(self) -> Email:
        return Email(**{"host": "127.0.0.1", "port": 1, "from": "muxly@acme.example", "to": "ada@acme.example"})  # type: ignore[arg-type]

    def wrong(self) -> Email:
        return email(self.server, attach="csv", password="an0ther-password")

    def interrupted(self) -> Email:
        broken = [None, None, None, UNHEARD]
        self.server.data = lambda message: broken.pop(0) if broken else None
        return email(self.server, attach="csv")


# ---- what a mail is ---------------------------------------------------------------------------------------------------


def test_a_record_is_a_mail_over_tls_with_headers_of_its_own(server: MailServer) -> None:
    receipt = email(server, subject="{{ name }}: {{ amount | number }}", text="{{ name }} is worth {{ amount }}").deliver(delivery(DEALS))
    first, second = server.taken
    assert (first.encrypted, first.user, first.sender, first.recipients) == (True, "muxly", "muxly@acme.example", ("ada@acme.example",))
    message = first.message
    assert (message["From"], message["To"], message["Subject"]) == ("Muxly <muxly@acme.example>", "ada@acme.example", "Acme: 12,500")
    assert (message["X-Muxly-Id"], message["Auto-Submitted"]) == ("crm.deals:0b8e1f9c:1", "auto-generated")
    assert abs(message["Date"].datetime - dt.datetime.now(dt.UTC)) < dt.timedelta(minutes=10)
    assert re.fullmatch(r"<[0-9a-f]{32}@acme\.example>", message["Message-ID"])
    assert first.text == "Acme is worth 12500\n"
    assert message.get_content_type() == "text/plain"
    assert server.connections == 1
    assert receipt.detail == {"host": "127.0.0.1", "mails": 2, "message_ids": [message["Message-ID"], second.message["Message-ID"]]}


def test_a_mail_has_the_same_id_whenever_it_is_sent_and_another_than_every_other_mail(relay: MailServer) -> None:
    for _ in range(2):
        email(relay).deliver(delivery(DEALS))
        email(relay, group={}).deliver(delivery(DEALS))
        email(relay).deliver(delivery(DEALS, delivery_id="small_deals.mails"))
    ids = [taken.message["Message-ID"] for taken in relay.taken]
    assert ids[:5] == ids[5:]
    assert len(set(ids)) == 5


def test_values_in_html_are_escaped_and_the_text_is_made_of_it(relay: MailServer) -> None:
    template = '<style>p {color: red}</style><h1>{{ name }}</h1>\n<p>See <a href="https://crm.example/{{ id }}">the deal</a>.</p>' + (
        "<table>{% for deal in records %}<tr><td>{{ deal.name }}</td><td>{{ deal.amount }}</td></tr>{% endfor %}</table>"
    )
    email(relay, html=template).deliver(delivery([{"id": 1, "name": "<b>R&D</b>", "amount": 5}]))
    (taken,) = relay.taken
    assert "<h1>&lt;b&gt;R&amp;D&lt;/b&gt;</h1>" in taken.html
    assert taken.text == "<b>R&D</b>\n\nSee the deal (https://crm.example/1).\n\n<b>R&D</b>  5\n"
    assert taken.message.get_content_type() == "multipart/alternative"
    assert [part.get_content_type() for part in taken.message.iter_parts()] == ["text/plain", "text/html"]


def test_without_templates_a_mail_shows_its_record(relay: MailServer) -> None:
    email(relay).deliver(delivery([{"id": 7, "name": "<Acme>", "tags": ["a"], "amount": None}]))
    (taken,) = relay.taken
    assert taken.message["Subject"] == "crm.deals 7"
    assert taken.text == 'crm.deals 7\n\nid: 7\nname: <Acme>\ntags: ["a"]\n'
    assert "&lt;Acme&gt;</td>" in taken.html and "amount" not in taken.html and "style=" in taken.html


def test_many_records_in_one_mail_are_a_table(relay: MailServer) -> None:
    receipt = email(relay, group={}, columns=["name", "amount"], attach="csv").deliver(delivery(DEALS))
    (taken,) = relay.taken
    assert receipt.accepted == 2
    assert taken.message["Subject"] == "crm.deals: 2 records"
    assert taken.message["X-Muxly-Id"] == "crm.deals:0b8e1f9c:2+1"
    assert taken.text == "crm.deals: 2 records\n\nname  amount\n----  ------\nAcme   12500\nBolt      -3\n"
    assert taken.html.count("<tr>") == 3
    assert taken.files == {"crm_deals.csv": b'\xef\xbb\xbf"name","amount"\n"Acme",12500\n"Bolt",-3\n'}


def test_records_are_grouped_by_columns_and_by_rule_up_to_the_most(relay: MailServer) -> None:
    rows = [{"id": n, "owner": "ab"[n % 2]} for n in range(6)]
    sent = replace(delivery(rows), rules=["big"] * 4 + ["small"] * 2, templates={"small": {"subject": "small: {{ count }}"}})
    email(relay, subject="{{ owner }}: {{ count }}", group={"by": ["owner"], "most": 2}).deliver(sent)
    assert sorted(taken.message["Subject"] for taken in relay.taken) == ["a: 2", "b: 2", "small: 1", "small: 1"]


def test_a_rule_that_says_a_text_is_not_sent_beside_the_destinations_html(relay: MailServer) -> None:
    sent = replace(delivery(DEALS), rules=["big", "other"], templates={"big": {"text": "big {{ name }}"}})
    email(relay, subject="{{ name }}", html="<p>deal {{ name }}</p>").deliver(sent)
    assert [(taken.text, taken.html) for taken in relay.taken] == [("big Acme\n", ""), ("deal Bolt\n", "<p>deal Bolt</p>\n")]


def test_deletions_are_taken_and_said_only_where_they_are_wanted(relay: MailServer) -> None:
    stretch = delivery(DEALS, ops=["upsert", "delete"])
    assert email(relay).deliver(stretch).accepted == 2
    assert [taken.message["Subject"] for taken in relay.taken] == ["crm.deals 1"]
    relay.taken.clear()
    assert email(relay, deletes=True).deliver(stretch).accepted == 2
    assert [taken.message["Subject"] for taken in relay.taken] == ["crm.deals 1", "crm.deals 2 deleted"]
    relay.taken.clear()
    email(relay, deletes=True, group={}, attach="csv", columns=["id"]).deliver(stretch)
    (taken,) = relay.taken
    assert taken.text.splitlines()[-2:] == ["          1", "deleted   2"]
    assert taken.files["crm_deals.csv"].decode("utf-8-sig").splitlines() == ['"_muxly_op","id"', '"upsert",1', '"delete",2']
    assert email(relay).deliver(delivery([{"id": 1}], ops=["delete"])).accepted == 1
    assert len(relay.taken) == 1


@pytest.mark.parametrize("value", ["=1+1", "+1", "-1", "@SUM(A1)", "\t=1", "\r=1", "\uff1d1"])
def test_what_a_spreadsheet_would_take_for_a_formula_is_text(relay: MailServer, value: str) -> None:
    email(relay, attach="csv").deliver(delivery([{"id": -1, "=name": value}]))
    rows = list(csv.reader(io.StringIO(relay.taken[0].files["crm_deals.csv"].decode("utf-8-sig"), newline="")))
    assert rows == [["id", "'=name"], ["-1", f"'{value}"]]


# ---- what is refused, and what would be sent --------------------------------------------------------------------------


def test_a_template_that_names_no_column_stops_the_delivery(relay: MailServer) -> None:
    for fields in ({"to": "{{ ownr }}"}, {"subject": "{{ nam }}"}, {"html": "{{ nam }}"}, {"columns": ["nam"]}, {"group": {"by": ["nam"]}}):
        with pytest.raises(ConfigurationError, match="there is no column"):
            email(relay, **fields).deliver(delivery(DEALS))
    with pytest.raises(ConfigurationError, match="`text` of rule big"):
        email(relay).deliver(replace(delivery(DEALS), rules=["big", "big"], templates={"big": {"text": "{{ nam }}"}}))
    assert relay.connections == 0


def test_a_record_that_a_template_fails_on_is_found_in_its_group(relay: MailServer) -> None:
    rows = [{"id": n, "size": size} for n, size in enumerate(["1", "2", "big", "4"])]
    receipt = email(relay, group={}, text="{% for r in records %}{{ r.size | number(1) }} {% endfor %}").deliver(delivery(rows))
    assert (receipt.accepted, [refusal.seq for refusal in receipt.refused]) == (3, [3])
    assert "the template fails on this record" in receipt.refused[0].reason
    assert [taken.text.strip() for taken in relay.taken] == ["1.0 2.0", "4.0"]


def test_a_record_that_no_mail_can_be_made_of_is_refused_alone(relay: MailServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """Older versions of Python fail on some names while they fold headers; which ones, nobody knows beforehand."""
    as_bytes = EmailMessage.as_bytes

    def failing(mail: EmailMessage) -> bytes:
        if mail["Subject"] == "Acme":
            raise IndexError("list index out of range")
        return as_bytes(mail)

    monkeypatch.setattr(EmailMessage, "as_bytes", failing)
    receipt = email(relay, subject="{{ name }}").deliver(delivery(DEALS))
    assert [r.reason for r in receipt.refused] == ["no mail can be made of it: IndexError: list index out of range"]
    assert [taken.message["Subject"] for taken in relay.taken] == ["Bolt"]


def test_what_would_be_sent_is_shown_with_headers_and_text(relay: MailServer) -> None:
    target = email(relay, to="{{ owner }}", bcc="audit@acme.example", subject="{{ name }}", text="{{ amount }}", attach="csv")
    first, second = target.render(delivery(DEALS))
    assert first.seqs == (1,)
    assert first.text == (
        "From: Muxly <muxly@acme.example>\nTo: ada@acme.example\nBcc: audit@acme.example\nSubject: Acme\n\n12500\n[crm_deals.csv]"
    )
    assert "Subject: Bolt" in second.text
    (failing,) = email(relay, text="{{ name | number(1) }}").render(delivery(DEALS[:1]))
    assert failing.text.startswith("no mail: the template fails")
    assert relay.connections == 0


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"to": []}, "there is no recipient: set `to`"),
        ({"to": ["ada@acme.example", "ops"]}, "is no address"),
        ({"cc": ""}, "is no address"),
        ({"from": "Muxly"}, "is no address"),
        ({"from": "a@b.example, c@d.example"}, "is not one address"),
        ({"from": "a@b.example\nBcc: c@d.example"}, "line break"),
        ({"host": "mail.acme.example/x"}, "match pattern"),
        ({"username": "muxly"}, "go together"),
        ({"password": "x"}, "go together"),
        ({"auth": {"kind": "basic", "username": "a"}}, "'basic' found using 'kind' does not match"),
        ({"auth": {"kind": "bearer", "token": "t"}}, "goes with a `username`"),
        ({"security": "ssl"}, "'starttls', 'tls' or 'none'"),
        ({"subject": "{{ name"}, "is no template"),
        ({"attach": "pdf"}, "'csv'"),
    ],
)
def test_what_cannot_be_is_refused_before_anything_is_sent(fields: dict[str, Any], said: str) -> None:
    with pytest.raises(ValidationError, match=re.escape(said)):
        Email(**{"host": "mail.acme.example", "from": "muxly@acme.example", "to": "ada@acme.example", **fields})
