"""Why a rule answered as it did about one record: the parts of its condition that decided, with the values they saw.

Every part is asked by `routing`, in one query with the whole, so what is said here is what the road decided.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import pyarrow as pa

from muxly_dagster import sandbox
from muxly_dagster.errors import ConfigurationError
from muxly_dagster.routing import Router, Rule

Answer = bool | Literal["failed"] | None
"""What a condition says of a row: true, false, unknown (None: SQL's null), or that it fails on it, as a cast may."""

_FEW = 5
"""More parts that decided together than so many are not named one by one: the condition they belong to stands for them."""

_OPENING, _CLOSING = ("L_PAREN", "L_BRACKET", "L_BRACE", "CASE"), ("R_PAREN", "R_BRACKET", "R_BRACE", "END")


@dataclass(frozen=True, slots=True)
class Decided:
    """A part of a condition as its author wrote it, its answer, and the values of the columns it names (None for null and missing)."""

    text: str
    answer: Answer
    values: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Explanation:
    """The whole condition's answer, and the parts that made it so, in the order they are written."""

    answer: Answer
    decided: tuple[Decided, ...]


@dataclass(frozen=True, slots=True)
class _Part:
    """A condition taken apart; of kind "one", there is nothing in it that could decide by itself."""

    text: str
    kind: Literal["and", "or", "not", "one"] = "one"
    parts: tuple["_Part", ...] = ()


def explain(when: str, row: pa.Table) -> Explanation:
    """Which parts of the condition `when` decided about one row (data and `_muxly_` columns; a column that is not there is null).

    An `and` that is not true is decided by the first part that answers as it does, an `or` that is true by the first true part;
    otherwise all parts decide (of an `or` that is unknown, the unknown ones). What cannot be asked part by part stands as a whole.
    Raises ConfigurationError for a condition that cannot be asked of this table at all.
    """
    whole = _taken_apart(when)
    try:
        answers = _answers(list(dict.fromkeys(_every(whole))), when, row)
    except ConfigurationError:
        whole = _Part(whole.text)
        answers = _answers([whole], when, row)
    decided = dict.fromkeys(_deciding(whole, answers))
    return Explanation(answers[whole], tuple(Decided(part.text, answers[part], _values(part, row)) for part in decided))


def _answers(parts: Sequence[_Part], when: str, row: pa.Table) -> dict[_Part, Answer]:
    """Each part's answer, the first part being the whole condition. All are asked as rules, in one query."""
    # A part of an AND or OR may be a number or a text, which SQL takes for a truth; the whole may not, so it is asked as it stands.
    asked = [f"({part.text})::BOOLEAN" for part in parts]
    rules = [Rule(when, (), "the condition"), *(Rule(text, ()) for text in asked[1:]), *(Rule(f"{text} IS NULL", ()) for text in asked)]
    given = Router(rules).decide(row).answers_of(0)
    true, unknown = given[: len(parts)], given[len(parts) :]
    return {
        part: "failed" if yes is None else True if yes else None if no else False
        for part, yes, no in zip(parts, true, unknown, strict=True)
    }


def _deciding(part: _Part, answers: Mapping[_Part, Answer]) -> list[_Part]:
    """The parts that made a part's answer what it is; itself where its own parts do not account for it, or are too many."""
    answer, below = answers[part], [answers[each] for each in part.parts]
    if not _accounts_for(part.kind, below, answer):
        return [part]
    decisive = below[0] if part.kind == "not" else answer
    deciding = [each for each, said in zip(part.parts, below, strict=True) if said == decisive]
    one_is_enough = answer == "failed" or (answer is not True if part.kind == "and" else answer is True)
    found = [each for one in (deciding[:1] if one_is_enough else deciding) for each in _deciding(one, answers)]
    return found if len(found) <= _FEW else [part]


def _accounts_for(kind: str, below: Sequence[Answer], answer: Answer) -> bool:
    """Whether these answers of the parts give the answer of the whole, in SQL's logic of three values.

    Not so where DuckDB's optimizer saved itself a part that fails when it is asked alone.
    """
    if kind == "one":
        return False
    if answer == "failed":
        return "failed" in below
    if kind == "not":
        return below == [None if answer is None else not answer]
    decisive = kind == "or"  # one such part is enough
    if answer is decisive:
        return decisive in below
    return decisive not in below and (None in below if answer is None else all(said is answer for said in below))


def _values(part: _Part, row: pa.Table) -> dict[str, Any]:
    """The values of the columns that a part names, found as SQL finds them: by exact name, else in other letter case."""
    folded = {name.casefold(): name for name in reversed(row.column_names)} | {name: name for name in row.column_names}
    columns = sandbox.read_expression(f"({part.text})").columns
    found = {name: folded.get(name, folded.get(name.casefold())) for name in columns}
    return {name: None if column is None else row[column][0].as_py() for name, column in found.items()}


def _every(part: _Part) -> Iterator[_Part]:
    yield part
    for each in part.parts:
        yield from _every(each)


# ---- taking apart -----------------------------------------------------------------------------------------------------


def _taken_apart(when: str) -> _Part:
    """A condition and what it is made of, each part in its author's own words."""
    import sqlglot

    text = sandbox.read_expression(when).text
    tokens = [token for token in sqlglot.tokenize(text, read="duckdb") if token.token_type.name != "SEMICOLON"]
    return _part(sqlglot.parse_one(text, read="duckdb"), tokens, text)


def _part(node: Any, tokens: Sequence[Any], text: str) -> _Part:
    """The part that sqlglot read as `node` from these tokens of the text."""
    from sqlglot import exp

    own = text[tokens[0].start : tokens[-1].end + 1]
    if isinstance(node, exp.Paren):
        return _part(node.this, tokens[1:-1], text)
    if isinstance(node, exp.Not) and tokens[0].token_type.name == "NOT":
        negated = _part(node.this, tokens[1:], text)
        return _Part(own) if negated.kind == "one" else _Part(own, "not", (negated,))
    if isinstance(node, exp.And | exp.Or):
        kind: Literal["and", "or"] = "and" if isinstance(node, exp.And) else "or"
        pieces = _pieces(tokens, kind.upper(), text, operands := _operands(node))
        if pieces is not None:
            return _Part(own, kind, tuple(_part(each, piece, text) for each, piece in zip(operands, pieces, strict=True)))
    return _Part(own)


def _operands(node: Any) -> list[Any]:
    """What a chain of ANDs, or of ORs, connects: `a and b and c` is read as `(a and b) and c`."""
    kind, operands = type(node), []
    while isinstance(node, kind):
        operands.append(node.expression)
        node = node.this
    return [node, *reversed(operands)]


def _pieces(tokens: Sequence[Any], word: str, text: str, operands: Sequence[Any]) -> list[Sequence[Any]] | None:
    """The tokens of each operand. None where they cannot be told apart.

    An AND may also belong to a BETWEEN: what stands between two of them is taken for an operand once it reads as that very operand.
    """
    depth, cuts = 0, [-1]
    for at, token in enumerate(tokens):
        name = token.token_type.name
        depth += (name in _OPENING) - (name in _CLOSING)
        if name == word and not depth:
            cuts.append(at)
    cuts.append(len(tokens))
    pieces: list[Sequence[Any]] = []
    first = 0
    for operand in operands:
        for last in range(first + 1, len(cuts)):
            piece = tokens[cuts[first] + 1 : cuts[last]]
            if piece and _reads_as(text[piece[0].start : piece[-1].end + 1], operand):
                pieces.append(piece)
                first = last
                break
        else:
            return None
    return pieces if first == len(cuts) - 1 else None


def _reads_as(text: str, node: Any) -> bool:
    import sqlglot
    from sqlglot.errors import SqlglotError

    try:
        # In brackets, what begins with a word such as `show` is not taken for a statement.
        return bool(sqlglot.parse_one(f"({text})", read="duckdb").this == node)
    except SqlglotError:
        return False
