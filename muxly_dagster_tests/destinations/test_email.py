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
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.csv
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from muxly_dagster.destinations.email import Email
from muxly_dagster.errors import ConfigurationError
from muxly_dagster.testing import DestinationContract, delivery
from muxly_dagster_tests.peers import exim as exim_peer
from muxly_dagster_tests.peers.exim import Exim
from muxly_dagster_tests.peers.mail import UNHEARD, Certificate, MailServer, Taken

PASSWORD = "s3cret-pa\u00df-of-muxly"
DEALS = [
    {"id": 1, "name": "Acme", "amount": 12500, "owner": "ada@acme.example"},
    {"id": 2, "name": "Bolt", "amount": -3, "owner": "bob@acme.example"},
]


def email(server: MailServer, **fields: Any) -> Email:
    """A destination from fields as they stand in muxly.yaml, for a server."""
    given: dict[str, Any] = {"host": "127.0.0.1", "port": server.port, "security": server.security, "from": "Muxly <muxly@acme.example>"}
    if server.certificate:
        given["ca_file"] = str(server.certificate.cert)
    if server.users:
        given |= dict(zip(("username", "password"), next(iter(server.users.items())), strict=True))
    return Email(**{**given, "to": "ada@acme.example", **fields})


@pytest.fixture(scope="session")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Certificate:
    return Certificate.made(tmp_path_factory.mktemp("certificate"), "127.0.0.1", "localhost")


@pytest.fixture
def server(certificate: Certificate) -> Iterator[MailServer]:
    with MailServer(certificate, users={"muxly": PASSWORD}) as server:
        yield server


@pytest.fixture
def relay() -> Iterator[MailServer]:
    """A server within the house, without encryption and sign-in."""
    with MailServer(security="none") as server:
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


# ---- recipients -------------------------------------------------------------------------------------------------------


def test_recipients_come_from_the_record_and_hidden_ones_stay_hidden(relay: MailServer) -> None:
    row = {
        "id": 1,
        "name": "Doe, Jane",
        "mail": "jane@acme.example",
        "team": ["a@acme.example", "b@acme.example"],
        "boss": "Boss <c@acme.example>, d@acme.example",
    }
    target = email(relay, to="{{ name }} <{{ mail }}>", cc=["{{ team }}", "{{ boss }}"], bcc="audit@acme.example", reply_to="{{ mail }}")
    target.deliver(delivery([row]))
    (taken,) = relay.taken
    copies = [f"{name}@acme.example" for name in "abcd"]
    assert taken.recipients == ("jane@acme.example", *copies, "audit@acme.example")
    assert taken.message["To"].addresses[0].addr_spec == "jane@acme.example"
    assert [address.addr_spec for address in taken.message["Cc"].addresses] == copies
    assert taken.message["Reply-To"] == "jane@acme.example"
    assert b"audit@" not in taken.content
    email(relay, to=[], bcc="audit@acme.example").deliver(delivery([{"id": 1}]))
    assert relay.taken[-1].message["To"] == "undisclosed-recipients:;"


def test_records_of_different_recipients_never_share_a_mail(relay: MailServer) -> None:
    rows = [{"id": n, "owner": f"{'ab'[n % 2]}@acme.example"} for n in range(5)]
    assert email(relay, to="{{ owner }}", group={}, columns=["id"]).deliver(delivery(rows)).accepted == 5
    said = {taken.recipients: [line.strip() for line in taken.text.splitlines()[4:]] for taken in relay.taken}
    assert said == {("a@acme.example",): ["0", "2", "4"], ("b@acme.example",): ["1", "3"]}


@pytest.mark.parametrize(
    ("owner", "reason"),
    [
        (None, "it has no recipient"),
        ("", "it has no recipient"),
        ("nobody", "`to` is no address"),
        ("a@b@c", "`to` is no address"),
        ("a@acme .example", "`to` is no address"),
        ("<a@acme.example", "`to` is no address"),
        ("a@acme.example\r\nBcc: eve@evil.example", "`to` holds a line break"),
        ("a@acme.example\nRCPT TO:<eve@evil.example>", "`to` holds a line break"),
    ],
)
def test_a_record_without_a_sound_recipient_is_refused_and_the_rest_goes_on(relay: MailServer, owner: str | None, reason: str) -> None:
    receipt = email(relay, to="{{ owner }}").deliver(delivery([{"id": 1, "owner": owner}, {"id": 2, "owner": "ada@acme.example"}]))
    assert (receipt.accepted, [refusal.seq for refusal in receipt.refused]) == (1, [1])
    assert receipt.refused[0].reason.startswith(reason)
    assert [taken.recipients for taken in relay.taken] == [("ada@acme.example",)]


def test_a_value_within_an_address_brings_no_further_recipient(relay: MailServer) -> None:
    row = {"id": 1, "name": 'eve@evil.example, "x" <eve@evil.example>;\r\nBcc: eve@evil.example', "mail": "ada@acme.example"}
    receipt = email(relay, to="{{ name }} <{{ mail }}>").deliver(delivery([row]))
    assert [taken.recipients for taken in relay.taken] in ([], [("ada@acme.example",)])
    assert receipt.accepted + len(receipt.refused) == 1


@pytest.mark.parametrize(
    "hidden", ["=?utf-8?q?x=0D=0ABcc:_eve@evil.example?=", "=?utf-8?b?eA0KQmNjOiBldmVAZXZpbC5leGFtcGxl?=", "==??utf-8?q?x=0ABcc:_eve?="]
)
@pytest.mark.parametrize("fields", [{"to": "{{ hidden }} <ada@acme.example>"}, {"to": "{{ whole }}"}, {"subject": "{{ hidden }}"}])
def test_a_line_break_in_an_encoded_word_makes_no_header(relay: MailServer, hidden: str, fields: dict[str, str]) -> None:
    row = {"id": 1, "hidden": hidden, "whole": f"{hidden} <ada@acme.example>"}
    receipt = email(relay, **fields).deliver(delivery([row]))
    assert receipt.accepted == 1 or "{{ whole }}" in fields.values()
    assert receipt.accepted == len(relay.taken)
    for taken in relay.taken:
        assert taken.recipients == ("ada@acme.example",)
        assert "Bcc" not in taken.message
        assert [address.addr_spec for address in taken.message["To"].addresses] == ["ada@acme.example"]
    receipt = email(relay, to="{{ hidden }}").deliver(delivery([{"id": 1, "hidden": f"{hidden}@acme.example"}]))
    assert len(receipt.refused) == 1


@pytest.mark.parametrize("name", [".", "Acme Inc.", "J. R. Doe", "Zo\u00eb \u65e5\u672c", "a  b", "", "'", "bob@acme.example"])
def test_a_name_is_only_a_name(relay: MailServer, name: str) -> None:
    email(relay, to="{{ name }} <ada@acme.example>").deliver(delivery([{"id": 1, "name": name}]))
    (taken,) = relay.taken
    (address,) = taken.message["To"].addresses
    assert (taken.recipients, address.addr_spec) == (("ada@acme.example",), "ada@acme.example")
    assert address.display_name.split() == name.split()


def test_addresses_beyond_ascii_go_where_the_server_knows_them(relay: MailServer) -> None:
    row = [{"id": 1, "owner": "j\u00f6rg@m\u00fcller.example"}]
    receipt = email(relay, to="{{ owner }}").deliver(delivery(row))
    assert [refusal.reason for refusal in receipt.refused] == ["the server knows only ASCII addresses, not j\u00f6rg@xn--mller-kva.example"]
    relay.smtputf8 = True
    assert email(relay, to="{{ owner }}").deliver(delivery(row)).accepted == 1
    assert relay.taken[0].recipients == ("j\u00f6rg@xn--mller-kva.example",)
    relay.smtputf8 = False
    assert email(relay, to="ada@m\u00fcller.example").deliver(delivery(row)).accepted == 1
    assert relay.taken[1].recipients == ("ada@xn--mller-kva.example",)


odd = st.lists(
    st.text(max_size=40) | st.sampled_from(["=?utf-8?q?", "=0D=0A", "?=", "\r\nBcc: eve@evil.example", "Inc. ", '"', "\u2028", "@", "_"]),
    max_size=6,
).map("".join)


@settings(max_examples=60, deadline=None)
@given(odd, odd, st.text(alphabet=st.characters(codec="utf-8"), max_size=300))
def test_whatever_a_record_says_stays_where_it_was_put(shared_relay: MailServer, subject: str, name: str, text: str) -> None:
    row = {"id": 1, **{n: v.encode("utf-8", "replace").decode() for n, v in (("subject", subject), ("name", name), ("text", text))}}
    shared_relay.taken.clear()
    target = email(
        shared_relay, to="{{ name }} <ada@acme.example>", subject="S: {{ subject }}", text="{{ text }}", html="<i>{{ text }}</i>"
    )
    receipt = target.deliver(delivery([row]))
    if receipt.refused:
        assert "`to`" in receipt.refused[0].reason
        return
    (taken,) = shared_relay.taken
    assert taken.recipients == ("ada@acme.example",)
    assert sorted(taken.message.keys()) == sorted(
        ["From", "To", "Subject", "Date", "Message-ID", "Auto-Submitted", "X-Muxly-Id", "MIME-Version", "Content-Type"]
    )
    assert str(taken.message["Subject"]).startswith("S:")
    assert [a.addr_spec for a in taken.message["To"].addresses] == ["ada@acme.example"]
    assert taken.message["To"].defects == ()
    assert taken.content.isascii() and max(map(len, taken.content.split(b"\r\n"))) < 998


@pytest.fixture(scope="module")
def shared_relay() -> Iterator[MailServer]:
    with MailServer(security="none") as server:
        yield server


@pytest.mark.parametrize(
    "text",
    [".", "..\n.\n.x\n", "x\r\n.\r\nMAIL FROM:<eve@evil.example>", "a\rb", "long " * 500, "\u6587" * 5000, "", "\x00\x07bell"],
)
def test_every_text_arrives_as_it_was(relay: MailServer, text: str) -> None:
    assert email(relay, text="{{ text }}").deliver(delivery([{"id": 1, "text": text}])).accepted == 1
    (taken,) = relay.taken
    assert taken.text.rstrip("\n") == re.sub(r"[\x00\x07]", " ", text).replace("\r\n", "\n").replace("\r", "\n").rstrip("\n")


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


# ---- a server of another kind -----------------------------------------------------------------------------------------


@pytest.fixture
def exim(tmp_path_factory: pytest.TempPathFactory, certificate: Certificate) -> Iterator[Exim]:
    if not exim_peer.found():
        pytest.skip("no Exim here: install the package exim4-daemon-light")
    # Not below pytest's own folder, into which only its owner may look: Exim runs as nobody.
    import shutil
    import tempfile

    folder = Path(tempfile.mkdtemp(prefix="muxly-exim-"))
    try:
        with exim_peer.running(folder, certificate, "muxly", "s3cret-pass") as running:
            yield running
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def test_exim_takes_what_is_sent_and_refuses_whom_it_does_not_know(exim: Exim, certificate: Certificate) -> None:
    fields: dict[str, Any] = {
        "host": "localhost",
        "port": exim.port,
        "ca_file": str(certificate.cert),
        "from": "Muxly <muxly@acme.example>",
    }
    target = Email(
        **fields, username="muxly", password="s3cret-pass", to="{{ owner }}", cc="{{ copy }}", subject="{{ name }} \u2713", attach="csv"
    )
    assert target.check().status == "ok"
    rows = [
        {"id": 1, "name": "Acme", "owner": "ada@acme.example", "copy": "bob@acme.example"},
        {"id": 2, "name": "Bolt", "owner": "eve@acme.example", "copy": None},
        {"id": 3, "name": "Cask", "owner": "ada@acme.example", "copy": "zoe@acme.example"},
        {"id": 4, "name": "Dart", "owner": "ada@elsewhere.example", "copy": None},
        {"id": 5, "name": "x" * 300_000, "owner": "ada@acme.example", "copy": None},
    ]
    receipt = target.deliver(delivery(rows))
    assert receipt.accepted == 2
    assert {refusal.seq: refusal.reason for refusal in receipt.refused} == {
        2: "eve@acme.example: 550 unknown user",
        4: "ada@elsewhere.example: 550 relay not permitted",
        5: "552 Message size exceeds maximum permitted",
    }
    first, second = exim.mailbox("ada", 2)
    assert (first["Subject"], second["Subject"]) == ("Acme \u2713", "Cask \u2713")
    assert [mail["Subject"] for mail in exim.mailbox("bob", 1)] == ["Acme \u2713"]
    assert receipt.detail["refused_recipients"] == {"zoe@acme.example": "550 unknown user"}
    assert Email(**fields, username="muxly", password="another-pass", to="ada@acme.example").check().status == "failed"
