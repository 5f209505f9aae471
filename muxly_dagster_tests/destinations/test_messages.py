"""Messages: what a record says stays what it says, every record is in one message, and every one of them is answered for."""

import datetime as dt
import decimal
import html
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from markdown_it import MarkdownIt
from markdown_it.token import Token
from pydantic import BaseModel, ConfigDict, SecretStr, ValidationError

from muxly_dagster.destination import Delivery
from muxly_dagster.destinations.slack.notes import cut, escape
from muxly_dagster.errors import ConfigurationError, RecordRefused, RetryLater, SignInError
from muxly_dagster.messages import (
    Group,
    Letter,
    PostingAddress,
    Settled,
    Template,
    TemplateText,
    TemplateTree,
    check_address,
    check_templates,
    deleted,
    host_of,
    letters,
    markdown,
    seqs_of,
    shorten,
)
from muxly_dagster.testing import delivery

NASTY = st.text(st.one_of(st.sampled_from("{}%#<>&*_`[]()!|~-+=1.\\\n \t\"':/@"), st.characters(codec="utf-8", exclude_categories=("Cs",))))


def letter(**data: Any) -> Letter:
    """A message of one record."""
    (found,) = letters(delivery([{"id": 1, **data}]))
    return found


def render(text: str, escape: Callable[[str], str] | None = None, **data: Any) -> str:
    return str(Template(text, escape).render(letter(**data)))


# ---- values stay values


@given(NASTY)
def test_a_value_is_never_read_as_a_template(value: str) -> None:
    record = {"x": value, "y": [value, {value: value}]}
    assert Template("<{{ x }}>").fill(record) == f"<{value}>"
    assert Template("{{ y[0] }}{% for z in y[1].values() %}{{ z }}{% endfor %}").fill(record) == value * 2
    assert Template("{{ x }}", typed=True).fill(record) == value
    assert Template({"a": ["{{ x }}"], "b": 7}).fill(record) == {"a": [value], "b": 7}


@given(NASTY, NASTY)
def test_a_value_in_html_or_in_slacks_markup_is_only_text(first: str, second: str) -> None:
    record = {"a": first, "b": second}
    for harmless in (escape, lambda text: html.escape(text, quote=True)):
        filled = Template("{{ a }}{{ b }}", harmless).fill(record)
        assert not set(filled) & set("<>")
        assert html.unescape(filled) == html.unescape(harmless(first)) + html.unescape(harmless(second))
        assert html.unescape(escape(first)) == first


@given(NASTY)
@example("a\r- b\r\n# c")
@example("    code")
def test_a_value_in_markdown_is_only_text(value: str) -> None:
    shown = _shown(MarkdownIt("commonmark").enable(["table", "strikethrough"]).parse(Template("{{ a }}", markdown).fill({"a": value})))
    assert shown.split() == _words(value)


@given(NASTY, NASTY)
def test_values_beside_each_other_and_within_emphasis_make_no_markdown(first: str, second: str) -> None:
    text = Template("x {{ a }}{{ b }} y", markdown).fill({"a": first, "b": second})
    assert _shown(MarkdownIt("commonmark").parse(text)).split() == _words(f"x {first}{second} y")


def _words(text: str) -> list[str]:
    # A carriage return ends a line, and NUL is shown as U+FFFD (CommonMark 0.31, 2.1 and 2.3).
    return text.replace("\x00", "\N{REPLACEMENT CHARACTER}").split()


def _shown(tokens: list[Token]) -> str:
    """What a reader sees, where it is nothing but paragraphs of text."""
    parts = []
    for token in tokens:
        assert token.type in ("paragraph_open", "paragraph_close", "inline"), f"{token.type} came of a value"
        for child in token.children or ():
            assert child.type in ("text", "text_special", "softbreak", "hardbreak"), f"{child.type} came of a value"
            parts.append(child.content if child.type.startswith("text") else "\n")
        parts.append("\n")
    return "".join(parts)


@given(st.text("&<>a;mplt "), st.integers(1, 40))
def test_a_shortened_text_ends_in_no_half_escape(value: str, most: int) -> None:
    short = cut(escape(value), most)
    assert len(short) <= most
    shown = html.unescape(short)
    assert shown == value or value.startswith(shown.removesuffix("…"))
    assert "&" not in html.unescape(short).replace("&", "", value.count("&"))


# ---- every record in one message


@st.composite
def stretches(draw: st.DrawFn) -> Delivery:
    """A delivery of some records, with rules or without, with gaps between their numbers."""
    rows = draw(
        st.lists(st.fixed_dictionaries({"owner": st.sampled_from([None, "a", "b"]), "size": st.integers(0, 2)}), min_size=1, max_size=30)
    )
    made = delivery([{"id": n, **row} for n, row in enumerate(rows)], ops=[draw(st.sampled_from(["upsert", "delete"])) for _ in rows])
    rules = draw(st.one_of(st.just(()), st.lists(st.sampled_from(["x", "y", ""]), min_size=len(rows), max_size=len(rows))))
    return replace(made, rules=tuple(rules))


@given(stretches(), st.one_of(st.none(), st.sampled_from([(), ("owner",), ("owner", "size")])), st.integers(1, 6), st.booleans())
def test_every_record_is_in_exactly_one_message(stretch: Delivery, by: tuple[str, ...] | None, most: int, leave_deletes: bool) -> None:
    group = None if by is None else Group(by=by if "owner" in stretch.rows.column_names else (), most=most)
    without = deleted(stretch) if leave_deletes else frozenset[int]()
    found = letters(stretch, group, without)
    seqs = [record["metadata"]["seq"] for record in stretch.records()]
    assert seqs_of(found) == tuple(seq for seq in seqs if seq not in without)
    assert [each.seqs[-1] for each in found] == sorted(each.seqs[-1] for each in found)
    for each in found:
        assert list(each.seqs) == sorted(each.seqs)
        assert len(each.records) <= (most if group else 1)
        assert {stretch.rule_of(seqs.index(seq)) for seq in each.seqs} == {each.rule}
        assert len({tuple(record["data"].get(name) for name in (group.by if group else ())) for record in each.records}) == 1
    assert len({each.id for each in found}) == len(found)


def test_a_message_knows_its_records_and_its_rule() -> None:
    stretch = replace(delivery([{"id": n, "owner": "a"} for n in range(3)]), rules=("x", "y", "x"))
    first, second = letters(stretch, Group())
    assert (first.seqs, first.rule, second.seqs, second.rule) == ((2,), "y", (1, 3), "x")
    assert (first.id, second.id) == ("crm.deals:0b8e1f9c:2", "crm.deals:0b8e1f9c:3+1")
    assert first.alike != second.alike
    text = "{{ rule }} {{ count }} {{ op }} {{ key }} {{ table }} {{ records | length }} {{ record.id }} {{ id }}"
    assert Template(text).render(second) == "x 2 upsert 2 crm.deals 2 crm.deals:0b8e1f9c:3 2"


# ---- what templates can and cannot


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("{{ missing.of.it }}{{ nothing }}", ""),
        ("{{ yes }} {{ tags }} {{ at }} {{ price }}", 'true ["a",{"b":null}] 2026-07-01 12:30:00 UTC 12.50'),
        ("{{ price | number }} {{ 1234.5 | number(2) }} {{ '1e3' | number }}", "12.50 1,234.50 1E+3"),
        ("{{ at | time }} {{ at | time('%H:%M', 'Europe/Berlin') }} {{ day | time('%d %b') }}", "2026-07-01 12:30 14:30 05 Mar"),
        ("{{ nothing | number }}{{ nothing | time }}", ""),
        ("{{ '2026-07-01T12:30:00' | time('%H:%M', 'Asia/Tokyo') }}", "21:30"),
        ("{{ tags[1].b is none }}", "true"),
        ("{% for tag in tags if tag is string %}{{ tag }}{% endfor %}", "a"),
    ],
)
def test_values_are_shown_to_people(text: str, shown: str) -> None:
    data: dict[str, Any] = {"yes": True, "tags": ["a", {"b": None}], "price": decimal.Decimal("12.50"), "nothing": None}
    data |= {"at": dt.datetime(2026, 7, 1, 12, 30, tzinfo=dt.UTC), "day": dt.date(2026, 3, 5)}
    assert Template(text).fill(data) == shown


@pytest.mark.parametrize("value", ["1E+999999999", "-1e999999", "1E-999999999", "9" * 500])
@pytest.mark.parametrize("text", ["{{ x | number }}", "{{ x | number(2) }}"])
def test_a_few_letters_never_become_a_number_without_end(text: str, value: str) -> None:
    try:
        assert len(Template(text).fill({"x": value})) < 1_000
    except RecordRefused as refused:
        assert "too long" in refused.what


def test_a_column_may_be_called_like_anything() -> None:
    assert Template("{{ args }}", typed=True).fill({"self": 1, "args": 2}) == 2
    assert render("{{ count }} {{ record.data.count }}", count=9) == "1 9"


@pytest.mark.parametrize(
    "text",
    [
        "{{ ''.__class__.__mro__ }}",
        "{{ records.append(1) }}",
        "{{ record.update({'id': 2}) }}",
        "{{ cycler.__init__.__globals__ }}",
        "{{ '%s' % (1, 2) }}",
        "{% for n in range(10 ** 9) %}{% endfor %}",
        "{{ name | number }}",
        "{{ name | time }}",
        "{{ name | time('%H', 'Nowhere/Else') }}",
    ],
)
def test_what_a_template_may_not_or_cannot_do_refuses_the_record(text: str) -> None:
    with pytest.raises(RecordRefused, match="the template fails on this record"):
        render(f"{text}{{{{ 1 // (name == 'Ada') }}}}" if "range" not in text else text, name="Bob")


class Model(BaseModel):
    text: TemplateText = ""
    tree: TemplateTree = None


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("{{ x", "is no template: unexpected end"),
        ("{% nonsense %}", "unknown tag 'nonsense'"),
        ("a\n{{ x | shout }}", "No filter named 'shout'"),
        ("{% include 'secrets' %}", "may not take in other templates"),
        ("{% import 'x' as y %}", "may not take in other templates"),
    ],
)
def test_what_is_no_template_is_told_when_the_project_is_read(text: str, said: str) -> None:
    with pytest.raises(ValidationError, match=said):
        Model(text=text)
    with pytest.raises(ValidationError, match=said):
        Model(tree={"a": [{"b": text}]})


def test_a_column_that_is_not_there_is_named_with_the_nearest_that_is() -> None:
    stretch = replace(
        delivery([{"id": 1, "name": "a"}]), rules=("x",), templates={"x": {"body": "{{ nme }}"}, "y": {"title": "{{ other }}"}}
    )
    check_templates(stretch, {"title": "{{ name }} {{ record }} {{ range }}", "tree": None})
    with pytest.raises(ConfigurationError, match="`body` of rule x: there is no column nme; did you mean name"):
        check_templates(stretch, {"body": "{{ name }}"})
    with pytest.raises(ConfigurationError, match="`body` of rule x is no template"):
        check_templates(replace(stretch, templates={"x": {"body": "{{"}}), {"body": None})
    with pytest.raises(ConfigurationError, match=r"group\.by: there is no column owner"):
        letters(stretch, Group(by=("owner",)))


def test_only_marked_texts_of_a_tree_are_escaped() -> None:
    tree = {"kind": "link", "text": "{{ x }}", "url": "{{ x }}", "below": [{"kind": "plain", "text": "{{ x }}"}]}
    template = Template(tree, marked=lambda node: {"text": escape} if node.get("kind") == "link" else {})
    assert template.fill({"x": "&"}) == {"kind": "link", "text": "&amp;", "url": "&", "below": [{"kind": "plain", "text": "&"}]}


def test_short_texts_stay_and_long_ones_end_in_a_mark() -> None:
    assert (shorten("abc", 3), shorten("abcd", 3), shorten("abcd", 0)) == ("abc", "ab…", "…")


# ---- every record is answered for

FORTY = delivery([{"id": n} for n in range(1, 41)])


@given(st.data(), st.sets(st.integers(1, 40), min_size=1, max_size=20))
def test_a_receipt_answers_for_the_beginning_and_for_what_was_taken_behind_a_gap(data: st.DataObject, numbers: set[int]) -> None:
    stretch = replace(FORTY, rows=FORTY.rows.take([n - 1 for n in sorted(numbers)]))
    outcomes = {seq: data.draw(st.sampled_from(["accepted", "refused", "open"])) for seq in sorted(numbers)}
    settled = Settled(stretch)
    for seq in data.draw(st.permutations(sorted(numbers))):
        if outcomes[seq] == "accepted":
            settled.accept([seq])
        elif outcomes[seq] == "refused":
            settled.refuse([seq], f"no {seq}")
    trouble = data.draw(st.sampled_from([None, RetryLater("later"), SignInError("who?")]))
    open_ = [seq for seq, outcome in outcomes.items() if outcome == "open"]
    assert settled.first_open == min(open_, default=None)
    before = [seq for seq in outcomes if not open_ or seq < open_[0]]
    try:
        receipt = settled.receipt({}, trouble)
    except (RetryLater, SignInError) as raised:
        assert raised is trouble
        assert not before
        assert "accepted" not in outcomes.values(), "what was taken behind the gap would be sent again"
        return
    assert receipt.accepted == sum(outcomes[seq] == "accepted" for seq in before)
    assert [(r.seq, r.reason) for r in receipt.refused] == [(seq, f"no {seq}") for seq in before if outcomes[seq] == "refused"]
    assert receipt.upto == (open_[0] - 1 if open_ else None)
    assert sorted(receipt.ahead) == [seq for seq, outcome in outcomes.items() if open_ and seq > open_[0] and outcome == "accepted"]
    assert receipt.retry is (trouble if open_ and isinstance(trouble, RetryLater) else None)


# ---- addresses


@pytest.mark.parametrize(
    "url", ["ftp://x/s3cret", "https:///s3cret", "https://[s3cret/x", "https://a:s3cret@h\u2100st/x", "https://h:s3cret/x"]
)
def test_an_address_that_posts_is_one_of_http_and_quoted_nowhere(url: str) -> None:
    with pytest.raises(ValidationError, match="must start with https:// and name a host") as caught:
        Hooked(url=SecretStr(url))
    assert "s3cret" not in f"{caught.value}"
    assert Hooked(url=SecretStr("https://hooks.example:8443/s3cret")).url.get_secret_value().endswith("/s3cret")


class Hooked(BaseModel):
    model_config = ConfigDict(hide_input_in_errors=True)
    url: PostingAddress


def test_an_address_that_posts_is_only_reached() -> None:
    assert host_of("https://ada:pass@hooks.example:8443/secret?x=1") == "https://hooks.example:8443"
    check = check_address("http://127.0.0.1:1/s3cret", 1.0)
    assert (check.status, "s3cret" in str(check)) == ("failed", False)
