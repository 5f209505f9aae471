"""What a failing state database means for the person who runs Muxly, in place of what its driver says."""

import contextlib
import sqlite3
from collections.abc import Iterator
from pathlib import Path

import sqlalchemy as sa

from muxly_dagster.errors import ConfigurationError, MuxlyError, RetryLater, SignInError

_KEPT = "nothing was lost: run it again"


def explain(engine: sa.Engine) -> None:
    """Let every failure of the database that is not a mistake of ours come out as a MuxlyError."""
    sa.event.listen(engine, "handle_error", _explained)


def meaning(engine: sa.Engine, error: BaseException) -> MuxlyError:
    """What a driver's own exception means, of a statement that went past SQLAlchemy."""
    return _meant(engine.dialect.name, error, _where(engine))


@contextlib.contextmanager
def usable_folder(folder: Path) -> Iterator[None]:
    """Turn a folder that cannot be used into a mistake in the configuration."""
    try:
        yield
    except OSError as error:
        raise ConfigurationError(
            f"{folder}: Muxly cannot keep its things here: {error.strerror}",
            do="make the folder writable, free some space, or set MUXLY_HOME",
        ) from None


def _explained(context: sa.ExceptionContext) -> None:
    error = context.original_exception
    # A ping that fails is how the pool finds out that it must connect anew.
    if context.is_pre_ping or not isinstance(context.sqlalchemy_exception, sa.exc.DatabaseError | sa.exc.InterfaceError):
        return
    if isinstance(context.sqlalchemy_exception, sa.exc.IntegrityError | sa.exc.ProgrammingError | sa.exc.DataError):
        return
    # The driver's exception may show the connection with its password.
    raise _meant(context.dialect.name, error, _where(context.engine)) from None


def _where(engine: sa.Engine | None) -> str:
    return engine.url.render_as_string(hide_password=True) if engine is not None else ""


def _meant(dialect: str, error: BaseException, where: str) -> MuxlyError:
    text = (str(error).strip().splitlines() or [type(error).__name__])[0]
    if dialect != "sqlite":
        if "authentication failed" in text or "no password supplied" in text or ('role "' in text and "does not exist" in text):
            return SignInError("the state database refuses the user name or password", where=where, do="correct MUXLY_DATABASE_URL")
        return RetryLater(
            f"the state database cannot be used: {text}", where=where, do=f"check MUXLY_DATABASE_URL and that it is up; {_KEPT}"
        )
    code = getattr(error, "sqlite_errorcode", 0) & 0xFF
    if code in (sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR):
        return RetryLater(f"the state database cannot be written: {text}", where=where, do=f"free some space on its disk; {_KEPT}")
    if code in (sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_CORRUPT):
        do = "put back a copy of the file; without one move it away: pulls then read everything again, and store only what is new"
        return ConfigurationError(f"the state database is damaged: {text}", where=where, do=do)
    if code in (sqlite3.SQLITE_READONLY, sqlite3.SQLITE_CANTOPEN):
        do = "make the file and its folder writable, or correct MUXLY_HOME or MUXLY_DATABASE_URL"
        return ConfigurationError(f"the state database cannot be written: {text}", where=where, do=do)
    return RetryLater(f"the state database cannot be used now: {text}", where=where, do=f"close what holds it open; {_KEPT}")
