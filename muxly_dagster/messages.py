"""Messages made of records: Jinja2 templates in a sandbox, one record or a group of them at a time; and what was answered for them.

In a template the record's columns go by their names. Beside them stand `record` (the whole record form), `records` and `count` (the data
of every record of the message, the newest last), `op`, `key`, `table` and `rule`; a column of such a name is `record.data.NAME`.
"""

import datetime as dt
import decimal
import hashlib
import re
import threading
import zoneinfo
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Annotated, Any
from urllib.parse import urlsplit

import jinja2
import jinja2.meta
import jinja2.sandbox
import pyarrow.compute as pc
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, SecretStr

from muxly_dagster import records, sandbox
from muxly_dagster.destination import Delivery, Receipt, Refusal
from muxly_dagster.errors import ConfigurationError, MuxlyError, RecordRefused, RetryLater
from muxly_dagster.http import Http, Request, Retries, Timeouts
from muxly_dagster.resource import CheckResult

Escape = Callable[[str], str]
"""Makes a value harmless where it is put: what a record says must not become markup."""

Marked = Callable[[Mapping[str, Any]], Mapping[str, Escape]]
"""Which texts of an object are markup, by field, and how values are made harmless in them. The others are taken as they stand."""

_GIVEN = ("record", "records", "count", "op", "key", "table", "rule")
_MOST_DIGITS = 500
_WHOLE = re.compile(r"\s*\{\{(?P<expression>(?:(?!\}\}|\{\{).)+)\}\}\s*", re.DOTALL)


class Group(BaseModel):
    """Many records in one message: all of a delivery, or those that are alike in some columns."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    by: tuple[str, ...] = Field((), description="Columns: records that are alike in them share a message. Without, all of them do.")
    most: int = Field(50, ge=1, le=10_000, description="Most records in one message.")


@dataclass(frozen=True, slots=True)
class Letter:
    """The records that go into one message, by seq, and the rule they share.

    `alike` is the same for all messages of one group (a hash: group keys are people's data), and empty where records are not grouped.
    """

    records: tuple[dict[str, Any], ...]
    rule: str = ""
    alike: str = ""

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


def letters(delivery: Delivery, group: Group | None = None, without: Collection[int] = ()) -> list[Letter]:
    """A delivery's records as messages, in the order of their newest record. Records of different rules never share one.

    `without` are seqs that need no message: what is deleted, or was sent before.
    """
    shown = [(delivery.rule_of(row), record) for row, record in enumerate(delivery.records()) if record["metadata"]["seq"] not in without]
    if group is None:
        return [Letter((record,), rule) for rule, record in shown]
    require_columns(group.by, delivery, "group.by")
    together: dict[str, list[dict[str, Any]]] = {}
    found: list[Letter] = []
    rules: dict[str, str] = {}
    for rule, record in shown:
        same = records.to_json([rule, *(record["data"].get(column) for column in group.by)])
        alike = hashlib.sha256(same).hexdigest()[:16]
        rules[alike] = rule
        held = together.setdefault(alike, [])
        held.append(record)
        if len(held) == group.most:
            found.append(Letter(tuple(together.pop(alike)), rule, alike))
    found += [Letter(tuple(held), rules[alike], alike) for alike, held in together.items()]
    return sorted(found, key=lambda letter: letter.seqs[-1])


def deleted(delivery: Delivery) -> frozenset[int]:
    """The changes of a delivery that say that a record is gone."""
    gone = delivery.rows.filter(pc.equal(delivery.rows[records.OP], "delete"))
    return frozenset(gone[records.SEQ].to_pylist())


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

    With `typed`, a text that is nothing but one `{{ expression }}` gives the expression's own value, not its text. With `marked`, it
    says for every object in the tree which of its texts are markup; `escape` is for texts that stand in no object.
    """

    value: Any
    escape: Escape | None = None
    typed: bool = False
    marked: Marked | None = None

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
            return self._filled(self.value, context, self.escape)
        except Exception as error:  # whatever a filter does to a value it was not made for
            raise RecordRefused(f"the template fails on this record: {type(error).__name__}: {error}") from None

    def _filled(self, value: Any, context: Mapping[str, Any], escape: Escape | None) -> Any:
        if isinstance(value, str):
            if self.typed and (whole := _WHOLE.fullmatch(value)):
                return _expression(whole["expression"])(context)
            return _compiled(value, escape).render(context)
        if isinstance(value, Mapping):
            escapes = dict.fromkeys(value, escape) if self.marked is None else self.marked(value)
            return {name: self._filled(each, context, escapes.get(name)) for name, each in value.items()}
        return [self._filled(each, context, escape) for each in value] if isinstance(value, list | tuple) else value


def template_of(delivery: Delivery, letter: Letter, name: str, otherwise: Any) -> Any:
    """What the field `name` says for a message: its rule's own template where it has one."""
    return delivery.templates.get(letter.rule, {}).get(name, otherwise)


def check_templates(delivery: Delivery, templates: Mapping[str, Any]) -> None:
    """Raise ConfigurationError when a template that this delivery would use names what no record of its table has.

    `templates` are the destination's own, by field; None where it has none.
    """
    for rule in sorted(set(delivery.rules) or {""}):
        own = delivery.templates.get(rule, {})
        for name, value in templates.items():
            setting = f"`{name}` of rule {rule}" if name in own and rule else f"`{name}`"
            try:
                Template(own.get(name, value)).check(delivery, setting)
            except jinja2.TemplateSyntaxError as error:
                raise ConfigurationError(f"{setting} is no template: {error.message}", where=delivery.id) from None


def _texts(value: Any) -> list[str]:
    if isinstance(value, str):
        return [value]
    below = value.values() if isinstance(value, Mapping) else value if isinstance(value, list | tuple) else ()
    return [text for each in below for text in _texts(each)]


def _checked(value: Any) -> Any:
    for text in _texts(value):
        try:
            others = list(jinja2.meta.find_referenced_templates(_environment(None).parse(text)))
            _compiled(text, None)
        except jinja2.TemplateSyntaxError as error:
            raise ValueError(f"is no template: {error.message} (line {error.lineno})") from None
        if others:
            raise ValueError("is no template: it may not take in other templates")
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
    if isinstance(number, decimal.Decimal) and number.is_finite() and number.adjusted() > _MOST_DIGITS:
        raise ValueError("the number is too long")  # `1E+999999999` would be a gigabyte of digits
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


_PUNCTUATION = re.compile(r"[\\`*_\[\]<>~&{}|]")
_INDENT = re.compile(r"^[ \t]+", re.MULTILINE)
_LINE_START = re.compile(r"^ ?(?:(?P<mark>#{1,6}|[+.)-]|=+|-+)|(?P<number>\d{1,9})(?P<dot>[.)]))(?=\s|$)", re.MULTILINE)


def markdown(text: str) -> str:
    """A value as Markdown that shows just the value (CommonMark 0.31, 2.4): no emphasis, link, heading, list or code comes of it."""
    escaped = _INDENT.sub(" ", _PUNCTUATION.sub(r"\\\g<0>", text.replace("\r\n", "\n").replace("\r", "\n")))
    return _LINE_START.sub(lambda found: found[0].replace(found["mark"] or found["dot"], f"\\{found['mark'] or found['dot']}", 1), escaped)


# ---- answers ----------------------------------------------------------------------------------------------------------


class Settled:
    """What has been answered for of a delivery's changes, whatever the order in which its messages go. May be told by several threads."""

    def __init__(self, delivery: Delivery) -> None:
        self._seqs: list[int] = delivery.rows[records.SEQ].to_pylist()
        self._accepted: set[int] = set()
        self._refused: dict[int, str] = {}
        self._lock = threading.Lock()

    def accept(self, seqs: Iterable[int]) -> None:
        """These changes are where they belong."""
        with self._lock:
            self._accepted.update(seqs)

    def refuse(self, seqs: Iterable[int], reason: str) -> None:
        """These changes will never be taken."""
        with self._lock:
            self._refused.update(dict.fromkeys(seqs, reason))

    @property
    def first_open(self) -> int | None:
        """The first change that nobody has answered for; None where there is none."""
        with self._lock:
            return next((seq for seq in self._seqs if seq not in self._accepted and seq not in self._refused), None)

    def receipt(self, detail: dict[str, Any], error: MuxlyError | None = None) -> Receipt:
        """The receipt for what is answered for: all of it, or the beginning, and what was accepted behind a gap in `ahead`.

        `error` is why it ended early, if it did. It is raised where nothing was accepted; else one that passes goes along as
        `retry`, and another one is met again by the next delivery, which begins right there.
        """
        end = self.first_open
        if end is None:
            return Receipt(len(self._accepted), self._refusals(self._seqs), detail)
        before = [seq for seq in self._seqs if seq < end]
        ahead = frozenset(seq for seq in self._accepted if seq > end)
        retry = error if isinstance(error, RetryLater) else None
        if error is not None and not before and not ahead:
            raise error
        return Receipt(sum(seq in self._accepted for seq in before), self._refusals(before), detail, upto=end - 1, retry=retry, ahead=ahead)

    def _refusals(self, seqs: Sequence[int]) -> tuple[Refusal, ...]:
        return tuple(Refusal(seq, self._refused[seq]) for seq in seqs if seq in self._refused)


def host_of(address: str) -> str:
    """Scheme and host of an address; what comes behind may be its password."""
    parts = urlsplit(address)
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}"


def _sound_address(address: SecretStr) -> SecretStr:
    try:
        parts = urlsplit(address.get_secret_value())
        sound = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:  # its words quote the address
        sound = False
    if not sound:
        raise ValueError("the address must start with https:// and name a host")
    return address


PostingAddress = Annotated[SecretStr, AfterValidator(_sound_address)]
"""An address that posts whatever is sent to it, and so is its own password."""


def check_address(address: str, timeout: float) -> CheckResult:
    """Reach the host of an address that posts whatever is sent to it: whether it is the right one cannot be tried without posting."""
    host = host_of(address)
    timeouts = Timeouts(connect=min(10.0, timeout), read=timeout, total=timeout)
    with Http(host, timeouts=timeouts, retries=Retries(attempts=1), judge=lambda _: "skip") as http:
        try:
            http.request(Request("OPTIONS", f"{host}/"))
        except MuxlyError as error:
            return CheckResult.failed(f"OPTIONS {host}", error)
    return CheckResult("ok", f"OPTIONS {host}", "the host answers; whether the address works is only seen by posting, which was not done")
