"""Every error Muxly raises on purpose, sorted by what the person or program that meets it must do next.

MuxlyError
├── ConfigurationError   change muxly.yaml or the environment (the command exits with 2)
├── SignInError          renew a credential
├── RetryLater           wait and try again; nothing was lost
├── GoneError            a person must decide: the other side wants nothing more, for good
├── RecordRefused        one record (or one of a batch) cannot be taken: shelve it, go on
├── SourceError          the other side answered something Muxly cannot use
└── BusyError            somebody else is doing this right now
"""

from dataclasses import dataclass


class MuxlyError(Exception):
    """What happened, where, and what to do next: shown to people as it stands, never with a traceback.

    `what` is a full sentence, `do` the next step in the imperative, `where` a file position, URL or table.
    None of the three may hold a secret.
    """

    exit_code = 1

    def __init__(self, what: str, *, do: str = "", where: str = "") -> None:
        super().__init__(what)
        self.what, self.do, self.where = what, do, where

    def __str__(self) -> str:
        where = f"{self.where}: " if self.where else ""
        do = f"\n  → {self.do}" if self.do else ""
        return f"{where}{self.what}{do}"


@dataclass(frozen=True, slots=True)
class Problem:
    """One mistake in what a user declared. `path` is dotted (`sources.crm.auth.token`); lines and columns count from 1."""

    path: str
    what: str
    do: str = ""
    file: str = ""
    line: int = 0
    column: int = 0

    def __str__(self) -> str:
        place = f"{self.file}:{self.line}:{self.column}: " if self.file else ""
        path = f"{self.path}: " if self.path else ""
        return f"{place}{path}{self.what}" + (f"; {self.do}" if self.do else "")


class ConfigurationError(MuxlyError):
    """What was declared cannot work. Holds every problem found, not just the first."""

    exit_code = 2

    def __init__(self, problems: "list[Problem] | str", *, do: str = "", where: str = "") -> None:
        self.problems = [Problem("", problems, do)] if isinstance(problems, str) else problems
        super().__init__("\n".join(str(p) for p in self.problems), where=where)


class SignInError(MuxlyError):
    """The other side refuses our credentials (401, 403, a failed log-in)."""


class RetryLater(MuxlyError):
    """A passing trouble: a refused connection, a 503, a full queue. `after` is the wait asked for, in seconds."""

    def __init__(self, what: str, *, do: str = "", where: str = "", after: float | None = None) -> None:
        super().__init__(what, do=do, where=where)
        self.after = after


class GoneError(MuxlyError):
    """The other side says that it is gone for good (410): nothing more is sent until a person switches it on again."""


class RecordRefused(MuxlyError):
    """The destination will never take something in this batch. The road finds the record by halving."""


class SourceError(MuxlyError):
    """The other side answered something Muxly cannot use: HTML for JSON, a repeated page cursor, a body too large."""


class BusyError(MuxlyError):
    """Another run holds what this one needs."""
