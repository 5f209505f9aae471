"""What is wrong with a declaration, said to people: pydantic's findings as positioned problems without any secret."""

import difflib
from collections.abc import Iterable, Mapping, Sequence
from types import UnionType
from typing import Any, Union, get_args, get_origin

from pydantic import BaseModel, SecretBytes, SecretStr, ValidationError

from muxly_dagster.errors import Problem
from muxly_dagster.project.locate import Node, Segment, dotted

_SHORTEST_SECRET = 4
_TYPES = {
    "string_type": "must be text",
    "bool_type": "must be true or false",
    "bool_parsing": "must be true or false",
    "int_type": "must be a whole number",
    "int_parsing": "must be a whole number",
    "int_from_float": "must be a whole number",
    "float_type": "must be a number",
    "float_parsing": "must be a number",
    "decimal_type": "must be a number",
    "decimal_parsing": "must be a number",
    "list_type": "must be a list",
    "tuple_type": "must be a list",
    "set_type": "must be a list",
    "frozen_set_type": "must be a list",
    "dict_type": "must be a map of names to values",
    "mapping_type": "must be a map of names to values",
    "model_type": "must be a map of names to values",
    "model_attributes_type": "must be a map of names to values",
}


def _slip(node: Node | None, wanted: str, known: Iterable[str]) -> str:
    """The key that was written where `wanted` was meant, if one looks so much like it."""
    written = node.value if node is not None and isinstance(node.value, dict) else {}
    return next(iter(difflib.get_close_matches(wanted, [key for key in written if key not in set(known)], n=1, cutoff=0.7)), "")


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """The next step for a word that is not among the known ones: the nearest of them, or all when they are few."""
    names = sorted(set(known))
    folded = {name.lower(): name for name in reversed(names)}
    near = difflib.get_close_matches(word.lower(), folded, n=1, cutoff=0.6)
    if near:
        return f"did you mean {folded[near[0]]}?"
    if not names:
        return ""
    shown = ", ".join(names[:12])
    return f"there {'is' if len(names) == 1 else 'are'} {shown}{' and others' if len(names) > 12 else ''}"


def problem_at(tree: Node, path: Sequence[Segment], what: str, do: str = "", *, at_key: bool = False) -> Problem:
    """A problem at a path, positioned at the value at fault, or at its key, or at the nearest one that is there."""
    node = tree.nearest(path)
    place = (node.key_at if at_key and tree.find(path) else None) or node.place
    for below in node.walk():
        for variable, text in below.filled.items():
            if len(text) >= _SHORTEST_SECRET:
                what, do = what.replace(text, variable), do.replace(text, variable)
    if node.variables:
        what += f" (its value comes from {' and '.join(node.variables)})"
    if place is None:
        return Problem(dotted(path), what, do)
    return Problem(dotted(path), what, do, place.file, place.line, place.column)


def problems_in(tree: Node, path: Sequence[Segment], error: ValidationError, model: type[BaseModel]) -> list[Problem]:
    """Every finding of `error`, raised by `model` for what the tree holds at `path`.

    Findings on values whose variable is missing are left out: the missing variable is the problem.
    """
    base = tree.find(path)
    found: dict[tuple[Segment, ...], Problem] = {}
    for detail in error.errors(include_url=False):
        loc, kind = _declared(base, detail["loc"], detail["type"]), detail["type"]
        full = (*path, *loc)
        node = tree.find(full)
        if full in found or (node is not None and any(below.missing for below in node.walk())):
            continue
        context: Mapping[str, Any] = detail.get("ctx", {})
        if kind == "extra_forbidden":
            name, known = str(loc[-1]) if loc else "", _fields_at(model, detail["loc"][:-1])
            found[full] = problem_at(tree, full, "is not known here", did_you_mean(name, known), at_key=True)
        elif kind == "missing" and (slip := _slip(tree.find(full[:-1]), str(full[-1]), _fields_at(model, detail["loc"][:-1]))):
            meant = (*full[:-1], slip)
            found.setdefault(meant, problem_at(tree, meant, "is not known here", f"did you mean {full[-1]}?", at_key=True))
        elif kind == "missing":
            found[full] = problem_at(tree, full, "is missing", _description(model, detail["loc"]))
        elif kind == "union_tag_not_found":
            choices = _tags(model, detail["loc"])
            found[full] = problem_at(tree, full, f"must say its {_key(context)}", f"one of {', '.join(choices)}" if choices else "")
        elif kind == "union_tag_invalid":
            key, choices = _key(context), [tag.strip(" '") for tag in str(context.get("expected_tags", "")).split(",")]
            written = node.child(key) if node else None
            found[full] = problem_at(tree, (*full, key), "is not known", did_you_mean(str(written.value) if written else "", choices))
        elif kind in ("literal_error", "enum"):
            choices = [choice.strip(" '") for choice in str(context.get("expected", "")).replace(" or ", ",").split(",")]
            written_text = str(node.value) if node else ""
            near = difflib.get_close_matches(written_text, choices, n=1)
            found[full] = problem_at(tree, full, f"must be one of {', '.join(choices)}", f"did you mean {near[0]}?" if near else "")
        elif kind in _TYPES:
            hint = "put it in quotes" if kind == "string_type" and node is not None and isinstance(node.value, int | float) else ""
            found[full] = problem_at(tree, full, _TYPES[kind], hint)
        elif loc and detail["loc"][-1] == "[key]":
            found[full] = problem_at(tree, full, detail["msg"], at_key=True)
        else:
            message = _sentence(detail["msg"])
            secrets = _secrets(node, path=full, model=model, loc=detail["loc"])
            if any(secret in message for secret in secrets):
                message = "is not valid"
            found[full] = problem_at(tree, full, message)
    return list(found.values())


def _declared(base: Node | None, loc: Sequence[Segment], kind: str) -> tuple[Segment, ...]:
    """A pydantic location as a path of the declaration: the tags of unions and the marks of map keys fall out."""
    node, path = base, []
    for index, step in enumerate(loc):
        last = index == len(loc) - 1
        below = node.child(step) if node else None
        if below is None and node is not None and not (last and kind in ("missing", "extra_forbidden")):
            continue
        path.append(step)
        node = below
    return tuple(path)


def _sentence(message: str) -> str:
    message = message.removeprefix("Value error, ").removeprefix("Assertion failed, ").rstrip(".")
    for start, instead in (("Input should", "should"), ("String should", "should"), ("List should", "should"), ("Value should", "should")):
        if message.startswith(start):
            return instead + message.removeprefix(start)
    return message


def _key(context: Mapping[str, Any]) -> str:
    return str(context.get("discriminator", "kind")).strip("'")


# ---- what the models know -------------------------------------------------------------------------------------------


def models_in(annotation: Any) -> list[type[BaseModel]]:
    """The models that an annotation can hold."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [model for part in get_args(annotation) for model in models_in(part)]


def _at(model: type[BaseModel], loc: Sequence[Segment]) -> list[type[BaseModel]]:
    """The models at a pydantic location."""
    models = [model]
    for step in loc:
        nested = [
            m
            for held in models
            for name, info in held.model_fields.items()
            if step in (name, info.alias)
            for m in models_in(info.annotation)
        ]
        tagged = [m for m in models if step in (m.__name__, *_literals(m))]
        models = nested or tagged or models
    return models


def _literals(model: type[BaseModel]) -> list[str]:
    return [str(info.default) for name, info in model.model_fields.items() if name in ("kind", "type") and isinstance(info.default, str)]


def _fields_at(model: type[BaseModel], loc: Sequence[Segment]) -> list[str]:
    return [info.alias or name for held in _at(model, loc) for name, info in held.model_fields.items()]


def _field(model: type[BaseModel], loc: Sequence[Segment]) -> Any:
    for held in _at(model, loc[:-1]):
        for name, info in held.model_fields.items():
            if loc and loc[-1] in (name, info.alias):
                return info
    return None


def _description(model: type[BaseModel], loc: Sequence[Segment]) -> str:
    info = _field(model, loc)
    return f"add it: {info.description.rstrip('.')}" if info is not None and info.description else "add it"


def _tags(model: type[BaseModel], loc: Sequence[Segment]) -> list[str]:
    info = _field(model, loc)
    return [tag for held in models_in(info.annotation) for tag in _literals(held)] if info is not None else []


def is_secret(annotation: Any) -> bool:
    """Whether values of this type are secrets."""
    if get_origin(annotation) in (Union, UnionType) or get_args(annotation):
        return any(is_secret(part) for part in get_args(annotation))
    return annotation in (SecretStr, SecretBytes)


def _secrets(node: Node | None, *, path: Sequence[Segment], model: type[BaseModel], loc: Sequence[Segment]) -> list[str]:
    """Texts below a node that no message may repeat: what stands under `auth`, in secret fields, or came from the environment."""
    if node is None:
        return []
    info = _field(model, loc) if loc else None
    if "auth" in path or (info is not None and is_secret(info.annotation)):
        guarded = list(node.walk())
    else:
        guarded = [below for below in node.walk() if below.variables]
        for held in _at(model, loc):
            names = [
                n for name, info in held.model_fields.items() if name == "auth" or is_secret(info.annotation) for n in (name, info.alias)
            ]
            guarded += [below for n in names if n and (child := node.child(n)) for below in child.walk()]
    return [str(below.value) for below in guarded if not isinstance(below.value, dict | list) and below.value not in (None, "")]
