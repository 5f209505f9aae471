"""Commented pieces of a muxly.yaml, made from the models that will read them: what must be said, and in comments what may be.

Lines come without indentation. Text in a comment begins with `# `, and a setting that is commented out does too, so that taking the
`# ` away leaves a setting that holds its default, or the field's first example where it has one.
"""

import json
import re
import textwrap
from collections.abc import Collection, Iterable, Mapping, Sequence
from types import UnionType
from typing import Any, Literal, Union, get_args, get_origin

import yaml
from pydantic import BaseModel, SecretBytes, SecretStr
from pydantic.fields import FieldInfo
from pydantic_core import to_jsonable_python

_WIDTH = 100  # characters, where a comment is broken and a value leaves the line of its name


def model_lines(
    model: type[BaseModel], *, variables: str, shown: Mapping[str, Any] | None = None, without: Collection[str] = ()
) -> list[str]:
    """The fields of a model as YAML: those required or in `shown` with a value; then the others in comments, with their defaults.

    A secret is an environment variable, `${CRM_TOKEN}` where `variables` is "crm" and the field `token`; so is whatever else has no
    value to begin with. Of models that are told apart by a field such as `kind`, the first (or the one `shown` names) is written
    out, the others follow in comments. `shown` and `without` go by the fields' names in YAML.
    """
    given = shown or {}
    said: list[str] = []
    choices: list[str] = []
    unsaid: list[str] = []
    for name, info in _fields(model, without).items():
        description = comment(info.description or "")
        if name in given or info.is_required():
            # A choice ends in a long comment, which should not stand above the next setting as if it were its own.
            chosen = choices if len(kinds(info.annotation)) > 1 else said
            chosen += description + _written(name, info, variables, given.get(name))
        else:
            unsaid += description + _left_out(name, info, variables)
    return said + choices + unsaid


def setting(name: str, value: Any) -> list[str]:
    """A name with its value, on one line where it fits, else below it."""
    flow = inline(value)
    if len(name) + len(flow) < _WIDTH or not isinstance(value, Mapping | list | tuple):
        return [f"{name}: {flow}"]
    block = yaml.safe_dump(to_jsonable_python(value), default_flow_style=None, sort_keys=False, width=_WIDTH, allow_unicode=True)
    return [f"{name}:", *indented(block.splitlines())]


def inline(value: Any) -> str:
    """A value as YAML on one line."""
    if value is None:
        return ""
    if isinstance(value, str) and (not value or "${" in value):
        return json.dumps(value, ensure_ascii=False)
    text = yaml.safe_dump(to_jsonable_python(value), default_flow_style=True, sort_keys=False, width=1 << 20, allow_unicode=True)
    return text.removesuffix("...\n").strip()


def comment(text: str) -> list[str]:
    """Text for people as lines of a comment."""
    return [f"# {line}" for line in textwrap.wrap(" ".join(text.split()), _WIDTH, break_long_words=False, break_on_hyphens=False)]


def commented(lines: Iterable[str]) -> list[str]:
    """Settings that are left out."""
    return [f"# {line}".rstrip() for line in lines]


def indented(lines: Iterable[str], by: int = 2) -> list[str]:
    """Lines further to the right."""
    return [" " * by + line if line else line for line in lines]


def variable(*parts: str) -> str:
    """The environment variable that stands for a value: `${CRM_TOKEN}`."""
    name = re.sub(r"\W+", "_", "_".join(part.strip("_") for part in parts)).upper()
    return f"${{{name}}}"


def kinds(annotation: Any) -> list[type[BaseModel]]:
    """The models that an annotation can hold, in their order."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    if get_origin(annotation) in (Union, UnionType) or hasattr(annotation, "__metadata__"):
        return [model for part in get_args(annotation) for model in kinds(part)]
    return []


def tag(model: type[BaseModel]) -> str:
    """What a model of several calls itself: the default of the literal field `kind` or `type`; empty for one that stands alone."""
    return next((str(info.default) for name, info in model.model_fields.items() if _is_tag(name, info)), "")


def _is_tag(name: str, info: FieldInfo) -> bool:
    return name in ("kind", "type") and get_origin(info.annotation) is Literal and len(get_args(info.annotation)) == 1


def _fields(model: type[BaseModel], without: Collection[str] = ()) -> dict[str, FieldInfo]:
    return {name: info for said, info in model.model_fields.items() if (name := info.alias or said) not in without}


# ---- what is said ----------------------------------------------------------------------------------------------------


def _written(name: str, info: FieldInfo, variables: str, given: Any) -> list[str]:
    models = kinds(info.annotation)
    if not models or (given is not None and not isinstance(given, Mapping)):
        return setting(name, _placeholder(name, info.annotation, variables) if given is None else given)
    chosen = _chosen(models, given)
    lines = [f"{name}:", *indented(_kind_lines(chosen, variables, given or {}, whole=True))]
    for other in models:
        if other is not chosen:
            lines += comment(f"Or: {_first_sentence(other)}")
            lines += commented([f"{name}:", *indented(_kind_lines(other, variables, {}, whole=False))])
    return lines


def _chosen(models: Sequence[type[BaseModel]], given: Mapping[str, Any] | None) -> type[BaseModel]:
    wanted = {str(value) for key, value in (given or {}).items() if key in ("kind", "type")}
    return next((model for model in models if tag(model) in wanted), models[0])


def _kind_lines(model: type[BaseModel], variables: str, given: Mapping[str, Any], *, whole: bool) -> list[str]:
    """The fields of one way among several. Its secrets are what it is about, so they are said even where they may be missing."""
    lines = []
    for name, info in _fields(model).items():
        if _is_tag(name, info):
            lines += setting(name, info.default)
        elif name in given or info.is_required() or _is_secret(info.annotation):
            lines += (comment(info.description or "") if whole else []) + _written(name, info, variables, given.get(name))
    for name, info in _fields(model).items():
        if whole and not _is_tag(name, info) and name not in given and not info.is_required() and not _is_secret(info.annotation):
            lines += comment(info.description or "") + _left_out(name, info, variables)
    return lines


def _left_out(name: str, info: FieldInfo, variables: str) -> list[str]:
    models = kinds(info.annotation)
    if len(models) > 1:
        # One that has nothing but its name says no more than leaving the setting out.
        worth_saying = [model for model in models if len(model.model_fields) > 1]
        blocks = [[f"{name}:", *indented(_kind_lines(model, variables, {}, whole=False))] for model in worth_saying]
        return [line for block in blocks for line in commented(block)]
    if _is_secret(info.annotation):
        return commented(setting(name, _secret(name, info.annotation, variables)))
    if info.examples:
        return commented(setting(name, info.examples[0]))
    default_value = info.get_default(call_default_factory=True)
    dumped = default_value.model_dump(mode="json", by_alias=True) if isinstance(default_value, BaseModel) else default_value
    return commented(setting(name, dumped))


def _placeholder(name: str, annotation: Any, variables: str) -> Any:
    """A value to begin with, where the field has none of its own."""
    origin = get_origin(annotation)
    if origin is Literal:
        return get_args(annotation)[0]
    if annotation is bool:
        return False
    if origin in (list, tuple, set, frozenset, Sequence):
        return [variable(variables, name)]
    if origin in (dict, Mapping):
        return {}
    return variable(variables, name)


def _secret(name: str, annotation: Any, variables: str) -> Any:
    """A variable where a secret stands: by itself, in a list, or under a name."""
    hidden, origins = variable(variables, name), {get_origin(part) for part in (annotation, *get_args(annotation))}
    if origins & {dict, Mapping}:
        return {"NAME": hidden}
    return [hidden] if origins & {list, tuple, Sequence} else hidden


def _is_secret(annotation: Any) -> bool:
    return annotation in (SecretStr, SecretBytes) or any(_is_secret(part) for part in get_args(annotation))


def _first_sentence(model: type[BaseModel]) -> str:
    text = " ".join((model.__doc__ or model.__name__).split())
    return re.split(r"(?<=\.) ", text, maxsplit=1)[0]
