"""Mail servers that refuse, wait, break off or lie: nothing is lost, and a mail that comes twice has the same id."""

import os
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from muxly_dagster.errors import ConfigurationError, GoneError, MuxlyError, RetryLater
from muxly_dagster.testing import delivery
from muxly_dagster_tests.destinations.mailing import ROWS
from muxly_dagster_tests.destinations.mailing import email_to_each as email
from muxly_dagster_tests.peers.faults import Line, blackhole, cut_sent, refuse, reset, reset_sent
from muxly_dagster_tests.peers.mail import HANG_UP, UNHEARD, MailServer, Talker

ROOT = Path(__file__).parents[2]


@pytest.fixture
def server(relay: MailServer) -> MailServer:
    return relay


def sent(server: MailServer) -> list[str]:
    return [str(taken.message["Subject"]) for taken in server.taken]


def only(number: int, said: str) -> Callable[[str], str | None]:
    """Says it of one recipient."""
    return lambda recipient: said if recipient == f"p{number}@acme.example" else None


# ---- what a server says -----------------------------------------------------------------------------------------------


def test_a_record_that_nobody_may_get_is_refused_with_the_servers_words(server: MailServer) -> None:
    server.rcpt = only(2, "550 5.1.1 no such user")
    receipt = email(server).deliver(delivery(ROWS))
    assert [(r.seq, r.reason) for r in receipt.refused] == [(2, "p2@acme.example: 550 5.1.1 no such user")]
    assert (receipt.accepted, receipt.upto, sent(server), server.connections) == (3, None, ["1", "3", "4"], 1)


def test_a_mail_that_somebody_gets_is_accepted_and_says_who_did_not(server: MailServer) -> None:
    server.rcpt = only(2, "553 5.1.8 bad name")
    receipt = email(server, cc="boss@acme.example").deliver(delivery(ROWS))
    assert (receipt.accepted, receipt.refused) == (4, ())
    assert receipt.detail["refused_recipients"] == {"p2@acme.example": "553 5.1.8 bad name"}
    assert [taken.recipients for taken in server.taken][1] == ("boss@acme.example",)


@pytest.mark.parametrize("said", ["450 4.2.1 mailbox busy", "452 4.5.3 too many", "552 too many recipients"])
def test_a_recipient_that_must_wait_holds_back_its_own_record_and_no_other(server: MailServer, said: str) -> None:
    server.rcpt = only(2, said)
    receipt = email(server).deliver(delivery(ROWS))
    assert (receipt.accepted, receipt.refused, receipt.upto, set(receipt.ahead)) == (1, (), 1, {3, 4})
    assert receipt.retry is not None and said[4:] in receipt.retry.what and receipt.retry.do
    assert (sent(server), server.connections) == (["1", "3", "4"], 1)


def test_nobody_gets_a_mail_twice_because_one_recipient_must_wait(server: MailServer) -> None:
    server.rcpt = lambda recipient: "451 4.7.1 greylisted" if recipient == "boss@acme.example" else None
    with pytest.raises(RetryLater, match="greylisted"):
        email(server, cc="boss@acme.example").deliver(delivery(ROWS[:1]))
    assert server.taken == []


def test_a_server_that_asks_everybody_for_patience_is_left_alone(server: MailServer) -> None:
    asked = []
    server.mail = lambda sender: asked.append(sender) or "451 4.3.0 not now"  # type: ignore[func-returns-value]
    with pytest.raises(RetryLater, match="451 4.3.0 not now"):
        email(server).deliver(delivery([{"id": n, "to": "p1@acme.example"} for n in range(30)]))
    assert len(asked) == 5


@pytest.mark.parametrize("said", ["552 5.3.4 too much", "554 5.7.1 looks like spam", "550 5.7.0 not like this"])
def test_content_that_is_refused_is_found_in_its_group(server: MailServer, said: str) -> None:
    server.data = lambda message: said if "bad" in str(message.get_body(("plain",))) else None
    rows = [{"id": n, "text": "bad" if n == 3 else "good"} for n in range(1, 7)]
    target = email(server, to="ada@acme.example", group={}, subject="{{ count }}", text="{% for r in records %}{{ r.text }} {% endfor %}")
    receipt = target.deliver(delivery(rows))
    assert (receipt.accepted, [(r.seq, r.reason) for r in receipt.refused]) == (5, [(3, said)])
    assert [taken.text.split() for taken in server.taken] == [["good"], ["good"], ["good"] * 3]
    ids = [taken.message["Message-ID"] for taken in server.taken]
    target.deliver(delivery(rows))
    assert [taken.message["Message-ID"] for taken in server.taken] == ids * 2


def test_a_mail_larger_than_the_server_takes_is_refused(server: MailServer) -> None:
    server.most_bytes = 2_000
    rows = [{"id": 1, "to": "p1@acme.example", "text": "x" * 5_000}, {"id": 2, "to": "p2@acme.example", "text": "short"}]
    receipt = email(server, text="{{ text }}").deliver(delivery(rows))
    assert [r.seq for r in receipt.refused] == [1] and receipt.refused[0].reason.startswith("552 ")
    assert (server.came[0]["Subject"], sent(server)) == ("2", ["2"])


def test_a_sender_that_is_not_allowed_is_nobodys_dead_letter(server: MailServer) -> None:
    server.mail = lambda sender: "553 5.7.1 not yours"
    with pytest.raises(ConfigurationError, match="refuses the sender muxly@acme.example: 553 5.7.1 not yours"):
        email(server).deliver(delivery(ROWS))


def test_an_address_that_is_wrong_for_all_records_is_nobodys_dead_letter(server: MailServer) -> None:
    server.rcpt = lambda recipient: "550 5.7.1 relaying denied"
    rows = [{"id": n, "to": f"p{n}@acme.example"} for n in range(30)]
    with pytest.raises(ConfigurationError, match="takes no mail for ops@acme.example: ops@acme.example: 550 5.7.1 relaying denied"):
        email(server, to="ops@acme.example").deliver(delivery(rows))
    assert len(email(server, to="ops@acme.example").deliver(delivery(rows[:3])).refused) == 3
    assert len(email(server).deliver(delivery(rows)).refused) == 30


def test_what_a_server_says_in_many_lines_is_one(server: MailServer) -> None:
    server.rcpt = lambda recipient: "550-5.1.1 nobody\r\n550 5.1.1 of that name"
    (refusal,) = email(server).deliver(delivery(ROWS[:1])).refused
    assert refusal.reason == "p1@acme.example: 550 5.1.1 nobody 5.1.1 of that name"


# ---- one connection for many mails ------------------------------------------------------------------------------------


@pytest.mark.parametrize("bye", ["421 4.7.0 enough for one connection", HANG_UP])
def test_a_server_that_closes_between_mails_is_connected_to_again(server: MailServer, bye: str) -> None:
    said = iter([None, None, bye, None, None])
    server.mail = lambda sender: next(said)
    assert email(server).deliver(delivery(ROWS)).accepted == 4
    assert (sent(server), server.connections) == (["1", "2", "3", "4"], 2)


def test_a_server_that_closes_at_once_again_is_waited_for(server: MailServer) -> None:
    said = iter([None, "421 4.3.2 going down", "421 4.3.2 going down"])
    server.mail = lambda sender: next(said)
    receipt = email(server).deliver(delivery(ROWS))
    assert (receipt.accepted, receipt.upto, sent(server)) == (1, 1, ["1"])
    assert receipt.retry is not None and "going down" in receipt.retry.what


@pytest.mark.parametrize("said", ["421 4.3.2 going down", "451 4.3.0 disk full", "452 4.3.1 no room"])
def test_a_mail_that_is_not_taken_now_is_tried_again(server: MailServer, said: str) -> None:
    server.data = lambda message: said if message["Subject"] == "2" else None
    receipt = email(server).deliver(delivery(ROWS))
    assert (receipt.accepted, receipt.upto) == (1, 1)
    assert receipt.retry is not None and said in receipt.retry.what
    assert sent(server) == (["1"] if said.startswith("421") else ["1", "3", "4"])


def test_fifty_mails_are_answered_for_before_the_next_go(server: MailServer) -> None:
    rows = [{"id": n, "to": "p1@acme.example"} for n in range(1, 121)]
    receipt = email(server).deliver(delivery(rows))
    assert (receipt.accepted, receipt.upto, receipt.retry, len(server.taken)) == (50, 50, None, 50)
    assert email(server, group={"by": ["id"]}).deliver(delivery(rows)).upto == 50
    del server.taken[50:]
    receipt = email(server).deliver(delivery(rows[50:], after=50))
    assert (receipt.accepted, receipt.upto) == (50, 100)
    assert email(server).deliver(delivery(rows[100:], after=100)).upto is None
    assert sent(server) == [str(n) for n in range(1, 121)]


def test_fifty_mails_are_answered_for_even_where_the_first_record_is_in_the_last_mail_or_must_wait(server: MailServer) -> None:
    rows = [{"id": n, "to": "p1@acme.example", "lot": 0 if n in (1, 120) else n} for n in range(1, 121)]
    receipt = email(server, group={"by": ["lot"]}).deliver(delivery(rows))
    assert (receipt.accepted, receipt.upto, len(receipt.ahead), len(server.taken)) == (51, 51, 1, 51)
    server.taken.clear()
    server.rcpt = only(2, "450 4.2.1 mailbox busy")
    rows = [{"id": n, "to": "p2@acme.example" if n == 1 else "p1@acme.example"} for n in range(1, 121)]
    receipt = email(server).deliver(delivery(rows))
    assert (receipt.accepted, receipt.upto, len(receipt.ahead), len(server.taken)) == (0, 0, 50, 50)
    assert receipt.retry is None, "the others do not wait: it goes on with them at once"
    receipt = email(server).deliver(delivery([rows[0], *rows[51:70]]))
    assert (len(receipt.ahead), len(server.taken)) == (19, 69)
    assert receipt.retry is not None and "mailbox busy" in receipt.retry.what


# ---- a bad line -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("fault", [cut_sent(50_000), reset_sent(50_000)], ids=["cut", "reset"])
def test_a_mail_that_breaks_off_is_not_taken_and_comes_whole_the_next_time(server: MailServer, fault: Any) -> None:
    rows = [{"id": 1, "to": "p1@acme.example", "text": "word " * 40_000}]
    with Line(server.port, fault) as line:
        target = email(line, text="{{ text }}")
        with pytest.raises(RetryLater, match="the connection broke while a mail was sent") as caught:
            target.deliver(delivery(rows))
        assert "same Message-ID" in caught.value.do
        assert server.taken == []
        line.then(cut_sent(10_000_000))
        assert target.deliver(delivery(rows)).accepted == 1
    assert server.taken[0].text.split() == ["word"] * 40_000


def test_an_answer_that_is_lost_brings_the_same_mail_with_the_same_id(server: MailServer) -> None:
    said = iter([UNHEARD])
    server.data = lambda message: next(said, None)
    target = email(server)
    with pytest.raises(RetryLater, match="the connection broke while a mail was sent"):
        target.deliver(delivery(ROWS[:1]))
    assert target.deliver(delivery(ROWS[:1])).accepted == 1
    first, second = server.taken
    assert first.message["Message-ID"] == second.message["Message-ID"]


@pytest.mark.parametrize("fault", [refuse, reset(0), reset(40)], ids=["closed", "reset", "reset later"])
def test_a_line_that_breaks_before_a_mail_is_tried_again(server: MailServer, fault: Any) -> None:
    with Line(server.port, fault) as line:
        with pytest.raises(RetryLater) as caught:
            email(line).deliver(delivery(ROWS))
        assert caught.value.do and caught.value.where == f"127.0.0.1:{line.port}"
        result = email(line).check()
        assert (result.status, result.tried) == ("failed", f"connect to 127.0.0.1:{line.port}")
    assert server.taken == []


def test_a_server_that_never_answers_is_left_after_the_timeout(server: MailServer) -> None:
    with Line(server.port, blackhole) as line, pytest.raises(RetryLater, match="no answer within 0.2 seconds"):
        email(line, timeout=0.2).deliver(delivery(ROWS))


def test_a_server_that_never_answers_a_whole_mail_is_waited_for_longer(server: MailServer) -> None:
    release = threading.Event()

    def hold(message: Any) -> str | None:
        release.wait(60)
        return None

    server.data = hold
    try:
        with pytest.raises(RetryLater, match="no answer to a whole mail within 1 seconds"):
            email(server, timeout=0.1).deliver(delivery(ROWS))
    finally:
        release.set()


def test_what_is_no_mail_server_is_said_so() -> None:
    for said in (b"HTTP/1.1 400 Bad Request\r\n\r\n", b"\x00\xff\x13\x01\r\n", b"x" * 20_000):
        with Talker(said) as talker:
            with pytest.raises(ConfigurationError) as caught:
                email(talker).deliver(delivery(ROWS))
            assert "mail server" in str(caught.value) or "turns this machine away" in str(caught.value)
            assert email(talker).check().do


def test_a_greeting_may_ask_for_patience_or_turn_away() -> None:
    with Talker(b"421 4.3.2 come back\r\n") as talker, pytest.raises(RetryLater, match="come back"):
        email(talker).deliver(delivery(ROWS))
    with Talker(b"554 5.7.1 your address is blocked\r\n") as talker, pytest.raises(ConfigurationError, match="is blocked"):
        email(talker).deliver(delivery(ROWS))


# ---- a process that dies ----------------------------------------------------------------------------------------------

DELIVER = """
import sys
from muxly_dagster.destinations.email import Email
from muxly_dagster.testing import delivery
fields = {"host": "127.0.0.1", "port": int(sys.argv[1]), "security": "none", "from": "muxly@acme.example", "to": "ada@acme.example"}
Email(**fields, group={}).deliver(delivery([{"id": 1}, {"id": 2}]))
"""


def test_a_process_that_is_killed_after_a_mail_was_taken_repeats_it_with_the_same_id(server: MailServer) -> None:
    taken, release = threading.Event(), threading.Event()

    def hold(message: Any) -> str | None:
        taken.set()
        release.wait(60)
        return None

    server.data = hold
    command = [sys.executable, "-c", DELIVER, str(server.port)]
    process = subprocess.Popen(command, cwd=ROOT, env=os.environ | {"PYTHONPATH": str(ROOT)})
    try:
        assert taken.wait(60)
    finally:
        process.kill()
        process.wait()
        release.set()
    server.data = lambda message: None
    assert email(server, to="ada@acme.example", group={}).deliver(delivery([{"id": 1}, {"id": 2}])).accepted == 2
    first, second = server.came
    assert first["Message-ID"] == second["Message-ID"]
    assert first["X-Muxly-Id"] == "crm.deals:0b8e1f9c:2+1"


def test_no_error_is_one_that_the_road_does_not_know(server: MailServer) -> None:
    """Whatever single reply a server gives at whatever step, a delivery ends in a receipt or in an error of Muxly's own."""
    for code in ("199", "220", "250", "299", "354", "399", "421", "450", "500", "530", "535", "550", "552", "554", "599"):
        for step in ("mail", "rcpt", "data"):
            with MailServer(security="none") as odd:
                setattr(odd, step, lambda argument, code=code: f"{code} odd")
                try:
                    receipt = email(odd, timeout=2).deliver(delivery(ROWS[:1]))
                except MuxlyError as error:
                    assert not isinstance(error, GoneError) and error.what
                else:
                    assert receipt.accepted + len(receipt.refused) == 1
