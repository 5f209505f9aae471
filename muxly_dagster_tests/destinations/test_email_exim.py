"""Mails reach a mail server of another kind, which nobody here wrote: Exim."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from muxly_dagster.destinations.email import Email
from muxly_dagster.testing import delivery
from muxly_dagster_tests.peers import exim as exim_peer
from muxly_dagster_tests.peers.certificate import Certificate
from muxly_dagster_tests.peers.exim import Exim


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
