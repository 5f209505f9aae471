"""MySQL and MariaDB for the `database` destination: LOAD DATA into a stage, UPDATE, INSERT, DELETE and the offset, in one transaction.

A change of a table commits what came before it, so tables are changed first, under a named lock that keeps other deliveries away; a
change that was made before a crash is found made. The session is strict, and whatever it warns of is refused: LOAD DATA LOCAL never fails.
"""

import ssl
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, ClassVar
from urllib.parse import SplitResult, parse_qsl, unquote, urlsplit

import pyarrow as pa
import pymysql
import xxhash

from muxly_dagster.destinations.database import mysql_rows, mysql_types
from muxly_dagster.destinations.database.landing import MADE_BY, Landing
from muxly_dagster.destinations.database.session import SIGN_IN, WAIT, Index, Session, Table, Widened, as_texts, refuse_inexact
from muxly_dagster.errors import ConfigurationError, MuxlyError, RecordRefused, RetryLater, SignInError

_CONNECT_SECONDS = 10
_SECONDS_OF_SILENCE = 900
_LOCK_SECONDS = 300
_MODE = "STRICT_ALL_TABLES,NO_ZERO_DATE,NO_ZERO_IN_DATE,ERROR_FOR_DIVISION_BY_ZERO,NO_ENGINE_SUBSTITUTION,NO_BACKSLASH_ESCAPES"
_STAGE = "`_muxly_stage`"
_FIRST_LOAD_ROWS = 1_000
_STATEMENT_BYTES = 4 << 20
_PREFIX = 191
"""How much of a long text an index of the configuration covers."""

_EXACT = ("utf8mb4_nopad_bin", "utf8mb4_0900_bin", "binary")
"""Collations that tell texts apart which differ in case, accents or spaces at their end."""

_SIGN_IN = {1045, 1698, 1820, 1862, 3118, 4151, 2059, 2061}
_RIGHTS = {1044, 1142, 1143, 1227, 1370, 1419}
_RECORD = {1048, 1062, 1118, 1153, 1216, 1264, 1265, 1292, 1364, 1366, 1406, 1411, 1452, 1525, 1586, 1690, 3140, 3819, 4025}
_PASSING = {1021, 1040, 1053, 1114, 1129, 1158, 1159, 1160, 1161, 1180, 1181, 1203, 1205, 1213, 1226, 1317, 2002, 2003, 2006, 2013, 2055}
_BINLOG = 1592  # a note that a statement is logged row by row


class MySqlSession(Session):
    """A connection by PyMySQL."""

    longest_name: ClassVar[int] = 64
    folds_case: ClassVar[bool] = True
    changes_tables_in_transaction: ClassVar[bool] = False
    mark: ClassVar[str] = "%s"

    def __init__(self, connection: mysql_rows.Connection, schema: str) -> None:
        self._connection, self.schema = connection, schema
        asked = "SELECT VERSION(), @@local_infile, @@max_allowed_packet, @@lower_case_table_names"
        version, local, packet, folds = self.rows(asked)[0]
        self._loads, self._packet, self._folds_tables = bool(int(local)), int(packet), bool(int(folds))
        self._collation = _exact_collation(str(version))
        text = f"varchar(255) CHARACTER SET utf8mb4 COLLATE {self._collation}"
        self.offset_types = (text, "bigint", "varchar(40)")  # type: ignore[misc]

    @classmethod
    @contextmanager
    def opened(cls, address: str, schema: str, target: str, *, lock: bool = False) -> Iterator["MySqlSession"]:
        where = " ".join(filter(None, [cls.describe(address), target]))
        parts = _parts(address)
        connection = None
        try:
            connection = mysql_rows.Connection(
                host=parts.hostname or "localhost",
                port=parts.port or 3306,
                user=unquote(parts.username or "") or None,
                password=unquote(parts.password or ""),
                database=unquote(parts.path.lstrip("/")) or None,
                charset="utf8mb4",
                connect_timeout=_CONNECT_SECONDS,
                read_timeout=_SECONDS_OF_SILENCE,
                write_timeout=_SECONDS_OF_SILENCE,
                autocommit=True,
                local_infile=True,
                init_command=f"SET SESSION sql_mode = '{_MODE}', time_zone = '+00:00'",
                **_options(parts.query),
            )
            yield cls(connection, schema)
            connection.commit()
        except pymysql.MySQLError as error:
            raise _explained(error, where) from None
        except RuntimeError as error:
            if connection is not None or "cryptography" not in str(error):
                raise
            do = "add ?ssl=true to `url`, or install the package cryptography where Muxly runs"
            raise ConfigurationError("without TLS this server takes a password only under encryption", do=do, where=where) from None
        finally:
            if connection is not None and connection.open:
                connection._force_close()  # type: ignore[attr-defined]  # a farewell could fail; the server notices

    @classmethod
    def describe(cls, address: str) -> str:
        return f"mysql://{address.partition('://')[2].rpartition('@')[2].partition('?')[0]}"

    @classmethod
    def check(cls, address: str, schema: str) -> str:
        with cls.opened(address, schema, "") as session:
            user, database, version = session.rows("SELECT CURRENT_USER(), DATABASE(), VERSION()")[0]
            where = schema or database
            if where is None:
                raise ConfigurationError("`url` names no database", do="put its name at the end: mysql://user:password@host/database")
            if not session.rows("SELECT 1 FROM information_schema.schemata WHERE schema_name = %s", [where]):
                raise ConfigurationError(f"there is no database {where}", do="create it, or correct `schema`")
            granted = " ".join(str(row[0]) for row in session.rows("SHOW GRANTS")).upper()
            if not any(right in granted for right in ("ALL PRIVILEGES", "INSERT")):
                raise ConfigurationError(f"user {user} may not write", do=f"GRANT ALL ON {where}.* TO {user};")
            way = "LOAD DATA LOCAL" if session._loads else "INSERT, as the server does not allow LOAD DATA LOCAL"
            return f"signed in as {user} to {where}, {version}, loading by {way}"

    def rows(self, statement: str, values: Sequence[object] = ()) -> list[tuple[Any, ...]]:
        with self._connection.cursor() as cursor:
            cursor.execute(statement, tuple(values) or None)
            return list(cursor.fetchall())

    def run(self, statement: str, values: Sequence[object] = ()) -> int:
        with self._connection.cursor() as cursor:
            return int(cursor.execute(statement, tuple(values) or None))

    def quote(self, name: str) -> str:
        return "`" + name.replace("`", "``") + "`"

    def lock(self, table: str) -> None:
        database = self.schema or self.rows("SELECT DATABASE()")[0][0]
        name = f"muxly {xxhash.xxh3_128_hexdigest(f'{database}.{table}'.encode())}"
        if self.rows("SELECT GET_LOCK(%s, %s)", [name, _LOCK_SECONDS])[0][0] != 1:
            raise RetryLater("another delivery into this table is still under way", do="the next run goes on from here", where=table)

    def begin(self, table: str, *, rehearsal: bool = False) -> None:
        self._connection.begin()

    def rollback(self) -> None:
        self._connection.rollback()

    # ---- the table

    def table(self, name: str) -> Table | None:
        found = self._described("table_name, table_type, table_comment", "tables", name)
        if not found:
            return None
        if found[0][1] not in ("BASE TABLE", "SYSTEM VERSIONED"):
            raise ConfigurationError("this is not a table but a view or the like", do="set another `table`", where=name)
        columns = self._described("table_name, column_name, column_type", "columns", name, " ORDER BY ordinal_position")
        return Table({column: str(type_).replace("bigint(20)", "bigint") for _, column, type_ in columns}, found[0][2].startswith(MADE_BY))

    def _described(self, columns: str, view: str, table: str, order: str = "") -> list[tuple[Any, ...]]:
        """Rows of information_schema about a table, which must begin with its name: there, `A` and `a` are one."""
        query = (
            f"SELECT {columns} FROM information_schema.{view} WHERE table_schema = coalesce(nullif(%s, ''), DATABASE()) AND table_name = %s"
        )
        found = self.rows(query + order, [self.schema, table])
        return [row for row in found if self._folds_tables or row[0] == table]

    def indexes(self, table: str) -> list[Index]:
        found: dict[str, list[tuple[Any, ...]]] = {}
        columns = "table_name, index_name, non_unique, column_name, sub_part"
        for _, name, *rest in self._described(columns, "statistics", table, " ORDER BY index_name, seq_in_index"):
            found.setdefault(name, []).append(tuple(rest))
        return [
            Index(tuple(column for _, column, _ in parts), not int(parts[0][0]))
            for parts in found.values()
            if all(column for _, column, _ in parts) and (int(parts[0][0]) or not any(part for _, _, part in parts))
        ]

    def column_type(self, field: pa.Field, landing: Landing) -> str:
        return mysql_types.column_type(field, self._collation, _key_of(landing, field))

    def fits(self, field: pa.Field, present: str, *, ours: bool) -> bool:
        if ours and present == "tinyint(1)":
            return bool(field.type == pa.bool_())
        return mysql_types.fits(field, present)

    def widened(self, field: pa.Field, present: str, landing: Landing) -> Widened | None:
        return mysql_types.widened(field, present, self._collation, _key_of(landing, field))

    def create(self, landing: Landing, columns: Mapping[str, str]) -> None:
        parts = [f"{self.quote(name)} {type_}{' NOT NULL' if name in landing.key else ''}" for name, type_ in columns.items()]
        if landing.key:
            parts.append(f"PRIMARY KEY ({self.quoted(landing.key)})")
        self.run(
            f"CREATE TABLE IF NOT EXISTS {self.name(landing.table)} ({', '.join(parts)})"
            f" DEFAULT CHARACTER SET utf8mb4 COLLATE {self._collation} COMMENT = '{MADE_BY}'"
        )

    def widen(self, landing: Landing, columns: Mapping[str, Widened]) -> None:
        """Into a copy that takes the table's place in one step, so that values are changed once even if a crash comes between."""
        name = self.name(landing.table)
        copy, old = self.name("_muxly_rebuilt"), self.name("_muxly_replaced")
        table = self.table(landing.table)
        assert table is not None
        self.run(f"DROP TABLE IF EXISTS {copy}, {old}")
        self.run(f"CREATE TABLE {copy} LIKE {name}")
        null = {column: " NOT NULL" if column in landing.key else "" for column in columns}
        parts = [f"MODIFY COLUMN {self.quote(column)} {wider.type}{null[column]}" for column, wider in columns.items()]
        long = {column for column, wider in columns.items() if _is_long(wider.type)}
        for index, covered in self._plain_indexes(landing.table).items():
            if long.intersection(covered):  # of a text that was a number before, an index takes the beginning
                parts.insert(0, f"DROP INDEX {self.quote(index)}")
                parts.append(f"ADD INDEX {self.quote(index)} ({self._covered(covered, long)})")
        self.run(f"ALTER TABLE {copy} {', '.join(parts)}")
        values = [columns[c].using.format(self.quote(c)) if c in columns else self.quote(c) for c in table.columns]
        self.run(f"INSERT INTO {copy} ({self.quoted(list(table.columns))}) SELECT {', '.join(values)} FROM {name}")
        self.run(f"RENAME TABLE {name} TO {old}, {copy} TO {name}")
        self.run(f"DROP TABLE {old}")

    def create_index(self, landing: Landing, name: str, columns: Sequence[str], *, unique: bool) -> bool:
        table = self.table(landing.table)
        long = {c.lower() for c, type_ in table.columns.items() if _is_long(type_)} if table and not unique else set()
        parts = self._covered(columns, long)
        try:
            self.run(f"CREATE {'UNIQUE ' if unique else ''}INDEX {self.quote(name)} ON {self.name(landing.table)} ({parts})")
        except pymysql.err.IntegrityError:
            return False
        return True

    def _covered(self, columns: Sequence[str], long: Collection[str]) -> str:
        """The columns of an index, of long texts and bytes their beginning."""
        return ", ".join(f"{self.quote(c)}({_PREFIX})" if {c, c.lower()} & set(long) else self.quote(c) for c in columns)

    def _plain_indexes(self, table: str) -> dict[str, list[str]]:
        """The columns of each index that is not unique, by its name."""
        found: dict[str, list[str]] = {}
        columns = "table_name, index_name, column_name, non_unique"
        for _, index, column, plain in self._described(columns, "statistics", table, " ORDER BY index_name, seq_in_index"):
            if int(plain) and column:
                found.setdefault(index, []).append(column)
        return found

    # ---- the rows

    def existing(self, landing: Landing, keys: pa.Table) -> int:
        same = self._stage(landing, keys)
        return int(self.rows(f"SELECT count(*) FROM {self.name(landing.table)} t JOIN {_STAGE} s ON {same}")[0][0])

    def upsert(self, landing: Landing, table: Table, rows: pa.Table) -> None:
        refuse_inexact(rows, table, ("double",), landing.target)
        name, columns = self.name(landing.table), self.quoted(rows.column_names)
        if not landing.key or (len(rows) >= _FIRST_LOAD_ROWS and not self.rows(f"SELECT 1 FROM {name} LIMIT 1")):
            self._fill(landing, name, rows)
            return
        same = self._stage(landing, rows)
        self._refuse_alike(landing, same)
        sets = ", ".join(f"t.{self.quote(c)} = s.{self.quote(c)}" for c in rows.column_names if c not in landing.key)
        if sets:
            self._strictly(f"UPDATE {name} t JOIN {_STAGE} s ON {same} SET {sets}")
        picked = ", ".join(f"s.{self.quote(c)}" for c in rows.column_names)
        missing = f"LEFT JOIN {name} t ON {same} WHERE t.{self.quote(landing.key[0])} IS NULL"
        self._strictly(f"INSERT INTO {name} ({columns}) SELECT {picked} FROM {_STAGE} s {missing}")

    def delete(self, landing: Landing, keys: pa.Table) -> int:
        same = self._stage(landing, keys)
        self._refuse_alike(landing, same)
        return self.run(f"DELETE t FROM {self.name(landing.table)} t JOIN {_STAGE} s ON {same}")

    def _stage(self, landing: Landing, rows: pa.Table) -> str:
        """A temporary table with the target's own column types; the condition that a row of it (s) and one of the table (t) are one."""
        parts = [f"{self.quote(name)} {type_} NULL" for name, type_ in self._typed(landing.table, rows.column_names)]
        types = self._typed(landing.table, list(landing.key))
        if not any(_is_long(type_) for _, type_ in types):
            parts.append(f"UNIQUE ({self.quoted(landing.key)})")
        self.run(f"DROP TEMPORARY TABLE IF EXISTS {_STAGE}")
        self.run(f"CREATE TEMPORARY TABLE {_STAGE} ({', '.join(parts)})")
        self._fill(landing, _STAGE, rows)
        return " AND ".join(f"t.{self.quote(c)} = s.{self.quote(c)}" for c in landing.key)

    def _typed(self, table: str, names: Sequence[str]) -> list[tuple[str, str]]:
        """Columns with their types and, for texts, their collation."""
        query = "table_name, column_name, column_type, character_set_name, collation_name"
        found = {row[1].lower(): row[2:] for row in self._described(query, "columns", table)}
        sets = {name: found[name.lower()] for name in names}
        return [(name, f"{type_} CHARACTER SET {set_} COLLATE {by}" if by else str(type_)) for name, (type_, set_, by) in sets.items()]

    def _refuse_alike(self, landing: Landing, same: str) -> None:
        """A key must not be taken for another one that a collation makes equal to it."""
        for name, type_ in self._typed(landing.table, list(landing.key)):
            collation = type_.partition(" COLLATE ")[2]
            if collation and collation not in _EXACT:
                column = self.quote(name)
                query = f"SELECT s.{column}, t.{column} FROM {self.name(landing.table)} t JOIN {_STAGE} s ON {same}"
                alike = self.rows(f"{query} WHERE CAST(s.{column} AS BINARY) <> CAST(t.{column} AS BINARY) LIMIT 1")
                if alike:
                    raise RecordRefused(
                        f"the key {alike[0][0]!r} is not {alike[0][1]!r}, but column {name} ({collation}) takes them for one",
                        do=f"give the column the collation {self._collation}",
                        where=landing.target,
                    )

    def _fill(self, landing: Landing, name: str, rows: pa.Table) -> None:
        mysql_rows.refuse_not_finite(rows)
        texts = {c.lower() for c, type_ in self._typed(landing.table, rows.column_names) if " COLLATE " in type_}
        rows = pa.table(
            [as_texts(c) if n.lower() in texts else c for n, c in zip(rows.column_names, rows.columns, strict=True)],
            names=rows.column_names,
        )
        columns = [self.quote(column) for column in rows.column_names]
        if self._loads:
            self._connection.at_hand = mysql_rows.loaded(rows)
            self._strictly(mysql_rows.load_statement(name, columns, rows))
            return
        head = f"INSERT INTO {name} ({', '.join(columns)}) VALUES ".encode()
        for values in mysql_rows.inserted(rows, min(self._packet, _STATEMENT_BYTES) - len(head) - 1024):
            self._strictly(head + values)

    def _strictly(self, statement: str | bytes) -> None:
        """Run a statement and refuse what it only warns of."""
        self._connection.query(statement)
        if self._connection._result.warning_count:
            for level, code, message in self.rows("SHOW WARNINGS"):
                if level != "Note" or code not in (_BINLOG,):
                    raise RecordRefused(str(message))


def _is_long(type_: str) -> bool:
    return type_.partition(" ")[0].endswith(("text", "blob"))


def _key_of(landing: Landing, field: pa.Field) -> list[pa.Field]:
    """The fields of the key, if this is one of them."""
    return [landing.columns.field(name) for name in landing.key] if field.name in landing.key else []


def _exact_collation(version: str) -> str:
    return "utf8mb4_nopad_bin" if "mariadb" in version.lower() else "utf8mb4_0900_bin"


def _parts(address: str) -> SplitResult:
    parts = urlsplit(address)
    try:
        _ = parts.port
    except ValueError:
        raise ConfigurationError("the port in `url` is no number", do="correct `url`; a password with `:` or `/` must be encoded") from None
    return parts


def _options(query: str) -> dict[str, Any]:
    """TLS from the URL: `ssl_ca`, `ssl_cert`, `ssl_key`, `ssl_verify_identity`, or `ssl=true` for whatever certificate there is."""
    options: dict[str, Any] = {}
    for name, value in parse_qsl(query):
        if name in ("ssl_ca", "ssl_cert", "ssl_key"):
            options[name] = value
        elif name in ("ssl_verify_cert", "ssl_verify_identity"):
            options[name] = value.lower() == "true"
        elif name == "ssl" and value.lower() == "true":
            options["ssl"] = context = ssl.create_default_context()
            context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        elif name != "charset":
            known = "ssl, ssl_ca, ssl_cert, ssl_key, ssl_verify_cert, ssl_verify_identity"
            raise ConfigurationError(f"a mysql:// `url` has no option {name}", do=f"use one of {known}, or leave it out")
    return options


def _explained(error: pymysql.MySQLError, where: str) -> MuxlyError:
    """The driver's error as one that says what to do. Codes: MySQL Error Message Reference, MariaDB Error Codes."""
    code = error.args[0] if error.args and isinstance(error.args[0], int) else 0
    what = str(error.args[1] if len(error.args) > 1 else error)
    if code in _SIGN_IN:
        return SignInError(f"the database refused the sign-in: {what}", do=SIGN_IN, where=where)
    if code in _RIGHTS:
        return ConfigurationError(what, do="grant the user of `url` the right to create and write this table", where=where)
    if code in _RECORD:
        return RecordRefused(what, where=where)
    if code in (2002, 2003, 2005):
        return RetryLater(f"the database cannot be reached: {what}", do=WAIT, where=where)
    if code in _PASSING or isinstance(error, pymysql.InterfaceError) or (not code and isinstance(error, pymysql.OperationalError)):
        return RetryLater(f"the database could not finish: {what}", do=WAIT, where=where)
    if code in (1290, 1792, 1836):
        return ConfigurationError(f"the server is read-only: {what}", do="let `url` name the server that takes writes", where=where)
    if code == 1049:
        return ConfigurationError(what, do="create the database, or correct its name in `url`", where=where)
    return ConfigurationError(f"the database refused the table: {what}", do="change the table, or set another `table`", where=where)
