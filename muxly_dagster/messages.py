"""Messages made of records: Jinja2 templates in a sandbox, one record or a group of them at a time.

In a template the record's columns go by their names. Beside them stand `record` (the whole record form), `records` and `count` (the data
of every record of the message, the newest last), `op`, `key`, `table` and `rule`; a column of such a name is `record.data.NAME`.
"""

import datetime as dt
import decimal
import re
import zoneinfo
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Annotated, Any

import jinja2
import jinja2.meta
import jinja2.sandbox
from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from muxly_dagster import records, sandbox
from muxly_dagster.destination import Delivery
from muxly_dagster.errors import ConfigurationError, RecordRefused

Escape = Callable[[str], str]
"""Makes a value harmless where it is put: what a record says must not become markup."""

_GIVEN = ("record", "records", "count", "op", "key", "table", "rule")
_WHOLE = re.compile(r"\s*\{\{(?P<expression>(?:(?!\}\}|\{\{).)+)\}\}\s*", re.DOTALL)


class Group(BaseModel):
    """Many records in one message: all of a delivery, or those that are alike in some columns."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    by: tuple[str, ...] = Field((), description="Columns: records that are alike in them share a message. Without, all of them do.")
    most: int = Field(50, ge=1, le=10_000, description="Most records in one message.")


@dataclass(frozen=True, slots=True)
class Letter:
    """The records that go into one message, by seq, and the rule they share."""

    records: tuple[dict[str, Any], ...]
    rule: str = ""

    @property
    def seqs(self) -> tuple[int, ...]:
        """The numbers of its changes, ascending."""
        return tuple(record["metadata"]["seq"] for record in self.records)

    @property
    def id(self) -> str:
        """The same records make a message of the same id: the newest record's own, with the oldest's number where there are several."""
        newest: str = self.records[-1]["id"]
        return newest if len(self.records) == 1 else f"{newest}+{self.seqs[0]}"

    @property
    def context(self) -> dict[str, Any]:
        """What a template sees."""
        newest = self.records[-1]
        given: dict[str, Any] = {
            "record": newest,
            "records": [record["data"] for record in self.records],
            "count": len(self.records),
            "op": newest["op"],
            "key": newest["key"],
            "table": newest["stream"],
            "rule": self.rule,
        }
        return {**newest["data"], **given}


def letters(delivery: Delivery, group: Group | None = None) -> list[Letter]:
    """A delivery's records as messages, in the order of their newest record. Records of different rules never share one."""
    shown = delivery.records()
    if group is None:
        return [Letter((record,), delivery.rule_of(row)) for row, record in enumerate(shown)]
    require_columns(group.by, delivery, "group.by")
    together: dict[tuple[str, bytes], list[dict[str, Any]]] = {}
    found: list[Letter] = []
    for row, record in enumerate(shown):
        alike = delivery.rule_of(row), records.to_json([record["data"].get(column) for column in group.by])
        held = together.setdefault(alike, [])
        held.append(record)
        if len(held) == group.most:
            found.append(Letter(tuple(together.pop(alike)), alike[0]))
    found += [Letter(tuple(held), alike[0]) for alike, held in together.items()]
    return sorted(found, key=lambda letter: letter.seqs[-1])


def require_columns(names: Iterable[str], delivery: Delivery, setting: str) -> None:
    """Raise ConfigurationError when the delivery's table lacks a column that a setting names."""
    known = records.data_schema(delivery.rows.schema).names
    missing = [name for name in names if name not in known]
    if missing:
        raise ConfigurationError(f"{setting}: {sandbox.unknown_column(missing[0], known)}", where=delivery.id)


# ---- templates --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Template:
    """A text, or lists and maps of texts, with `{{ }}` in it. `escape` is asked about every text that a record puts in.

    With `typed`, a text that is nothing but one `{{ expression }}` gives the expression's own value, not its text.
    """

    value: Any
    escape: Escape | None = None
    typed: bool = False

    @property
    def names(self) -> set[str]:
        """What the template takes from outside: columns, and what is given beside them."""
        environment = _environment(self.escape)
        return {name for text in _texts(self.value) for name in jinja2.meta.find_undeclared_variables(environment.parse(text))}

    def check(self, delivery: Delivery, setting: str) -> None:
        """Raise ConfigurationError when the template names what no record of this table has."""
        require_columns(sorted(self.names - {*_GIVEN, *_environment(self.escape).globals}), delivery, setting)

    def render(self, letter: Letter) -> Any:
        """The template filled in. Raises RecordRefused when it cannot be for these records."""
        return self.fill(letter.context)

    def fill(self, context: Mapping[str, Any]) -> Any:
        """The template filled in with these names. Raises RecordRefused when that fails."""
        try:
            return self._filled(self.value, context)
        except Exception as error:  # whatever a filter does to a value it was not made for
            raise RecordRefused(f"the template fails on this record: {type(error).__name__}: {error}") from None

    def _filled(self, value: Any, context: Mapping[str, Any]) -> Any:
        if isinstance(value, str):
            if self.typed and (whole := _WHOLE.fullmatch(value)):
                return _expression(whole["expression"])(**context)
            return _compiled(value, self.escape).render(context)
        if isinstance(value, Mapping):
            return {name: self._filled(each, context) for name, each in value.items()}
        return [self._filled(each, context) for each in value] if isinstance(value, list | tuple) else value


def _texts(value: Any) -> list[str]:
    if isinstance(value, str):
        return [value]
    below = value.values() if isinstance(value, Mapping) else value if isinstance(value, list | tuple) else ()
    return [text for each in below for text in _texts(each)]


def _checked(value: Any) -> Any:
    for text in _texts(value):
        try:
            _environment(None).parse(text)
        except jinja2.TemplateSyntaxError as error:
            raise ValueError(f"is no template: {error.message} (line {error.lineno})") from None
    return value


TemplateText = Annotated[str, AfterValidator(_checked)]
"""A field that is a template."""

TemplateTree = Annotated[Any, AfterValidator(_checked)]
"""A field of lists and maps whose texts are templates."""


@lru_cache(maxsize=16)
def _environment(escape: Escape | None) -> jinja2.Environment:
    environment = jinja2.sandbox.ImmutableSandboxedEnvironment(
        undefined=jinja2.ChainableUndefined,  # what a nested value lacks is nothing; a name that is no column is found by `check`
        finalize=lambda value: _shown(value, escape),
        keep_trailing_newline=True,
    )
    environment.filters |= {"number": _number, "time": _time}
    return environment


@lru_cache(maxsize=1024)
def _compiled(text: str, escape: Escape | None) -> jinja2.Template:
    return _environment(escape).from_string(text)


@lru_cache(maxsize=1024)
def _expression(text: str) -> Callable[..., Any]:
    return _environment(None).compile_expression(text)


class Safe(str):
    """Text that is markup already: it is not escaped."""


def _shown(value: Any, escape: Escape | None) -> Any:
    """A value as text for people: nothing for null, JSON for what is nested."""
    if value is None or isinstance(value, jinja2.Undefined):
        return ""
    if isinstance(value, bool):
        text = "true" if value else "false"
    elif isinstance(value, dt.datetime):
        text = value.astimezone(dt.UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
    elif isinstance(value, Mapping | list | tuple | bytes):
        text = records.to_json(value).decode()
    else:
        text = str(value)
    return escape(text) if escape is not None and not isinstance(value, Safe) else text


def _number(value: Any, decimals: int | None = None) -> str:
    """`{{ amount | number(2) }}`: 12,500.00."""
    if value is None or isinstance(value, jinja2.Undefined):
        return ""
    number = value if isinstance(value, int | float | decimal.Decimal) else decimal.Decimal(str(value))
    return f"{number:,}" if decimals is None else f"{number:,.{decimals}f}"


def _time(value: Any, form: str = "%Y-%m-%d %H:%M", zone: str = "UTC") -> str:
    """`{{ closed_at | time("%d %b, %H:%M", "Europe/Berlin") }}`."""
    if value is None or isinstance(value, jinja2.Undefined):
        return ""
    moment = dt.datetime.fromisoformat(value) if isinstance(value, str) else value
    if isinstance(moment, dt.datetime):
        moment = (moment if moment.tzinfo else moment.replace(tzinfo=dt.UTC)).astimezone(zoneinfo.ZoneInfo(zone))
    return str(moment.strftime(form))


def shorten(text: str, most: int) -> str:
    """Text of at most so many characters, with a mark where it was cut."""
    return text if len(text) <= most else text[: max(0, most - 1)] + "\N{HORIZONTAL ELLIPSIS}"


def seqs_of(letters_: Sequence[Letter]) -> tuple[int, ...]:
    """The changes in these messages, ascending."""
    return tuple(sorted(seq for letter in letters_ for seq in letter.seqs))
