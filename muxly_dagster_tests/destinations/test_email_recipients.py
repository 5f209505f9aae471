"""Mails go to whom a record names and to nobody else, whatever its values hold."""

import re
from collections.abc import Iterator

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from muxly_dagster.testing import delivery
from muxly_dagster_tests.destinations.mailing import email
from muxly_dagster_tests.peers.mail import MailServer


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
