"""What the command prints: safe for the terminal whoever wrote it, and quick where nothing is asked for."""

import subprocess
import sys

import pytest
from rich.console import Console

from muxly_dagster.cli import terminal
from muxly_dagster.errors import ConfigurationError, MuxlyError, Problem

EVIL = "\x1b]0;owned\x07\x1b[2Jgone\x9b31m\rover\x08"


def test_what_a_provider_says_cannot_steer_the_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    terminal.say(EVIL)
    terminal.fail(MuxlyError(EVIL, do=EVIL, where=EVIL))
    terminal.fail(ConfigurationError([Problem(EVIL, EVIL), Problem("b", "c")]))
    terminal.print_table([EVIL], [[EVIL]])
    terminal.print_grid([[EVIL, EVIL]])
    terminal.print_records([EVIL], [[EVIL]])
    terminal.print_checks([(EVIL, "failed", EVIL, EVIL)])
    written = "".join(capsys.readouterr())
    assert written.count("gone") >= 11
    assert not set(written) & set("\x1b\x07\x08\x9b\r")


@pytest.mark.parametrize("width", [40, 60, 80])
def test_a_narrow_terminal_cuts_nothing(width: int, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(terminal, "out", Console(soft_wrap=True, highlight=False, width=width))
    row = ["salesforce", "A title of several words", "python, with a reason", "oauth2, bearer", 1_024]
    terminal.print_table(["id", "title", "kind", "signs in with", "streams"], [row], numbers=["streams"])
    lines = capsys.readouterr().out.splitlines()
    assert max(map(len, lines)) <= width
    assert any(line.startswith("salesforce ") for line in lines)
    words = " ".join(lines).split()
    assert "…" not in "".join(words) and "1,024" in words
    if width >= 60:
        assert {"title", "several", "reason", "oauth2,", "bearer"} <= set(words)


def test_line_breaks_and_letters_stay_as_they_are(capsys: pytest.CaptureFixture[str]) -> None:
    terminal.say("Zoë\tЖ 😀\nnext")
    assert capsys.readouterr().err.split() == ["Zoë", "Ж", "😀", "next"]


def test_the_help_waits_for_nothing_that_it_does_not_need() -> None:
    code = "import sys, muxly_dagster.cli; print(*{'dagster', 'pyarrow', 'sqlalchemy', 'pydantic', 'pyreqwest', 'yaml'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.split() == []
