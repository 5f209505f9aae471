"""The state database: opened, migrated, and its locks."""

import contextlib
import hashlib
import sqlite3
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from filelock import FileLock, Timeout

from muxly_dagster.errors import BusyError, ConfigurationError, MuxlyError
from muxly_dagster.state import cursors as cursor_rows
from muxly_dagster.state.breakers import Breakers
from muxly_dagster.state.calls import KeptCalls
from muxly_dagster.state.inbox import SharedInbox
from muxly_dagster.state.jobs import Jobs
from muxly_dagster.state.keys import WriteKeys
from muxly_dagster.state.ledger import Ledger
from muxly_dagster.state.metrics import Metrics
from muxly_dagster.state.reading import only_reads, reading
from muxly_dagster.state.starts import Starts
from muxly_dagster.state.troubles import explain, meaning, usable_folder
from muxly_dagster.state.turns import SharedTurns
from muxly_dagster.state.waiting import Waiting

HEAD = "0006"
"""The newest migration; a database that stands there needs no Alembic at start."""

_SCHEMA = "muxly"
_CACHE = 2000  # KiB that each connection keeps of the file
_PAGES, _LARGE_PAGES = 4096, 16384  # bytes; large ones where most of what is written is large


class State:
    """Everything remembered between runs. `locks` is the folder for lock files where the database is SQLite."""

    def __init__(
        self, engine: sa.Engine, locks: Path, inbox: sa.Engine | None = None, marks: Callable[[], sa.Engine] | None = None
    ) -> None:
        self.engine, self._locks = engine, locks
        self.inbox_engine = engine if inbox is None else inbox
        self.ledger = Ledger(engine)
        self.cursors = cursor_rows.Cursors(engine)
        self.breakers = Breakers(engine)
        self.waiting = Waiting(engine)
        self.turns = SharedTurns(engine)
        self.metrics = Metrics(engine)
        self.jobs = Jobs(engine)
        self.starts = Starts(engine)
        self.calls = KeptCalls(engine)
        self.inbox = SharedInbox(self.inbox_engine, self.lock, marks)
        self.keys = WriteKeys(engine)

    @classmethod
    def open(cls, url: str, home: Path) -> "State":
        """Open the database, create or migrate it where needed. Raises ConfigurationError, SignInError, RetryLater."""
        with usable_folder(home):
            home.mkdir(parents=True, exist_ok=True)
            (home / "locks").mkdir(exist_ok=True)
        engine = _opened(url, home)
        # SQLite has one writer at a time: collected events go into a file of their own, so that neither they nor runs wait for each other,
        # and the index of their ids into another one, which is written beside them, and only by who stores events.
        inbox, marks = _beside(url, "inbox"), _beside(url, "marks")
        if not inbox:
            return cls(engine, home / "locks")
        return cls(engine, home / "locks", _opened(inbox, home, page=_LARGE_PAGES), lambda: _opened(marks, home, page=_LARGE_PAGES))

    def close(self) -> None:
        """Give the connections back."""
        self.engine.dispose()
        self.inbox_engine.dispose()
        self.inbox.close()

    @contextlib.contextmanager
    def lock(self, name: str) -> Iterator[None]:
        """Hold `name` alone, for one run; a process that dies lets go at once. Raises BusyError when it is held."""
        busy = BusyError(f"another run of {name} is going on", do="wait until it has ended, or stop it in the Dagster UI")
        if self.engine.dialect.name == "sqlite":
            try:
                with FileLock(self._locks / f"{name}.lock", timeout=0):
                    yield
            except Timeout:
                raise busy from None
            return
        number = int.from_bytes(hashlib.sha256(f"muxly:{name}".encode()).digest()[:8], "big", signed=True)
        with self.engine.connect() as connection:
            if not connection.scalar(sa.select(sa.func.pg_try_advisory_lock(number))):
                raise busy
            connection.commit()
            try:
                yield
            finally:
                with contextlib.suppress(MuxlyError):  # a connection that is gone has let go already
                    connection.execute(sa.select(sa.func.pg_advisory_unlock(number)))


def _opened(url: str, home: Path, page: int = _PAGES) -> sa.Engine:
    engine = _engine(url, page)
    explain(engine)
    try:
        with _at_start(engine, home):
            _migrate(engine)
    except MuxlyError:
        engine.dispose()
        raise
    return engine


def _beside(url: str, what: str) -> str:
    """A database beside a SQLite database, such as `state-inbox.db`; empty where everything lies in one."""
    parsed = sa.make_url(url)
    if parsed.get_backend_name() != "sqlite" or not parsed.database or parsed.database == ":memory:":
        return ""
    path = Path(parsed.database)
    return parsed.set(database=str(path.with_name(f"{path.stem}-{what}{path.suffix}"))).render_as_string(hide_password=False)


def _engine(url: str, page: int = _PAGES) -> sa.Engine:
    """Its errors, which the log may get, do not quote what was to be written: events, bodies of calls, hashes of keys."""
    try:
        parsed = sa.make_url(url)
    except sa.exc.ArgumentError:
        raise ConfigurationError(
            "MUXLY_DATABASE_URL is not a database URL", do="write it like postgresql://user:password@host/database"
        ) from None
    if parsed.get_backend_name() == "sqlite":
        if parsed.database:
            folder = Path(parsed.database).parent
            with usable_folder(folder):
                folder.mkdir(parents=True, exist_ok=True)
        engine = sa.create_engine(parsed, connect_args={"isolation_level": None, "timeout": 30}, hide_parameters=True)
        sa.event.listen(engine, "connect", lambda connection, _: _sqlite_settings(connection, page))
        sa.event.listen(engine, "begin", _begin)
        return engine
    if parsed.get_backend_name() == "postgresql":
        parsed = parsed.set(drivername="postgresql+psycopg")
        # A lock's connection idles for as long as the run takes: keepalives stop a firewall from forgetting it.
        arguments = {"options": f"-csearch_path={_SCHEMA}", "connect_timeout": 10, "keepalives_idle": 30}
        # Who waits for a turn is to see what was committed before it: whatever the database is set to.
        isolation = "READ COMMITTED"
        return sa.create_engine(parsed, isolation_level=isolation, pool_pre_ping=True, connect_args=arguments, hide_parameters=True)
    raise ConfigurationError(
        f"Muxly cannot keep its state in {parsed.get_backend_name()}", do="set MUXLY_DATABASE_URL to a sqlite:/// or postgresql:// URL"
    )


def _sqlite_settings(connection: Any, page: int) -> None:
    connection.execute(f"pragma page_size={page}")  # counts for a new file only
    connection.execute(f"pragma cache_size={-_CACHE}")
    connection.execute("pragma journal_mode=wal")
    connection.execute("pragma synchronous=full")
    connection.execute("pragma secure_delete=fast")
    connection.execute("pragma busy_timeout=30000")


def _begin(connection: sa.Connection) -> None:
    # Take the write lock at the start: a read that later turns into a write would fail instead of waiting.
    driver: Any = connection.connection.driver_connection
    try:  # past SQLAlchemy, for which this would be half of what a short transaction takes
        driver.execute("BEGIN" if only_reads(connection) else "BEGIN IMMEDIATE")
    except sqlite3.Error as error:
        raise meaning(connection.engine, error) from None


@contextlib.contextmanager
def _at_start(engine: sa.Engine, home: Path) -> Iterator[None]:
    """One process at a time creates or migrates the database."""
    if engine.dialect.name == "sqlite":
        with FileLock(home / "migrate.lock", timeout=60):
            yield
        return
    with engine.connect() as connection:
        connection.execute(sa.text("select pg_advisory_lock(7766001)"))
        connection.execute(sa.text(f"create schema if not exists {_SCHEMA}"))
        connection.commit()
        try:
            yield
        finally:
            connection.execute(sa.text("select pg_advisory_unlock(7766001)"))


def _migrate(engine: sa.Engine) -> None:
    with reading(engine) as connection:
        if sa.inspect(connection).has_table("alembic_version"):
            version = connection.scalar(sa.text("select version_num from alembic_version"))
            if version == HEAD:
                return
            if version is not None and version > HEAD:
                raise MuxlyError(
                    f"the state database was written by a newer Muxly (migration {version}, this one knows {HEAD})",
                    do="upgrade muxly-dagster",
                )
    from alembic import command  # slow to import, and seldom needed
    from alembic.config import Config

    config = Config()
    config.set_main_option("script_location", "muxly_dagster:state/migrations")
    config.set_main_option("path_separator", "os")
    config.attributes["engine"] = engine
    command.upgrade(config, "head")
