"""Calls people's Python functions: imported from the project's folder, given tables as their annotations ask for."""

import importlib
import inspect
import sys
import traceback
import typing
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

from muxly_dagster.assembly import Transform
from muxly_dagster.errors import ConfigurationError, MuxlyError
from muxly_dagster.intake import current_calls
from muxly_dagster.lake import Lake
from muxly_dagster.relations import Rows, returned_rows
from muxly_dagster.sandbox import quote

if TYPE_CHECKING:
    import duckdb

_PARAMETERS, _CALLS = "parameters", "calls"


@contextmanager
def function_rows(
    lake: Lake,
    connection: "duckdb.DuckDBPyConnection",
    transform: Transform,
    target: str,
    folder: Path | None,
    parameters: Mapping[str, Any],
) -> Iterator[Rows]:
    """Call `target` ("module:function") with the transform's inputs; its rows are good until the block is left.

    A parameter called `parameters` is given what the run was started with, and one called `calls` the calls of its webhook that started it,
    unless a table goes by that name.
    """
    with _importable(folder):
        function = _function(target, transform, folder)
        arguments, keywords = _arguments(function, lake, connection, transform, parameters)
        with _blamed(target, transform, folder):
            given = function(*arguments, **keywords)
        yield returned_rows(f"transform {transform.name}", target, given)


def _arguments(
    function: Callable[..., Any],
    lake: Lake,
    connection: "duckdb.DuckDBPyConnection",
    transform: Transform,
    given: Mapping[str, Any],
) -> tuple[list[Any], dict[str, Any]]:
    """Tables go to parameters of their names (`contacts` or `crm_contacts` for crm.contacts), or in order where none has one."""
    parameters = [
        parameter
        for parameter in inspect.signature(function).parameters.values()
        if parameter.kind not in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD)
    ]
    others: dict[str, Any] = {}
    tables = [name for table in transform.inputs for name in (table.replace(".", "_"), table.rpartition(".")[2])]
    not_tables: dict[str, Callable[[], Any]] = {_PARAMETERS: lambda: dict(given), _CALLS: current_calls}
    for name, value in not_tables.items():
        if name in [parameter.name for parameter in parameters] and name not in tables:
            parameters = [parameter for parameter in parameters if parameter.name != name]
            others[name] = value()
    try:
        hints = typing.get_type_hints(function)
    except Exception:  # annotations may name what is imported for type checkers only
        hints = {}
    by_name: dict[str, Any] = {}
    for name in transform.inputs:
        short = name.rpartition(".")[2]
        names = (
            (name.replace(".", "_"), short)
            if [i.rpartition(".")[2] for i in transform.inputs].count(short) == 1
            else (name.replace(".", "_"),)
        )
        found = next((parameter for parameter in parameters if parameter.name in names), None)
        if found:
            by_name[found.name] = _input(name, hints.get(found.name, found.annotation), lake, connection, transform)
    required = [parameter for parameter in parameters if parameter.default is parameter.empty]
    if len(by_name) == len(transform.inputs) and all(parameter.name in by_name for parameter in required):
        return [], by_name | others
    positional = [parameter for parameter in parameters if parameter.kind is not parameter.KEYWORD_ONLY]
    if by_name or not len(required) <= len(transform.inputs) <= len(positional):
        raise ConfigurationError(
            f"{transform.spec.python}({', '.join(p.name for p in parameters)}) does not take the tables {', '.join(transform.inputs)}",
            do="give it one parameter per table, named after the table",
            where=f"transform {transform.name}",
        )
    pairs = zip(transform.inputs, positional, strict=False)
    return [_input(name, hints.get(p.name, p.annotation), lake, connection, transform) for name, p in pairs], others


def _input(name: str, annotation: Any, lake: Lake, connection: "duckdb.DuckDBPyConnection", transform: Transform) -> Any:
    """The current rows of a table as what the parameter's annotation says; pyarrow where it says nothing."""
    said = annotation if isinstance(annotation, str) else getattr(annotation, "__qualname__", str(annotation))
    match said.rpartition(".")[2]:
        case "DataFrame":
            return lake.existing(name).current().to_pandas()
        case "DuckDBPyRelation":
            lake.attach(connection, [name])
            return connection.sql(f"SELECT * FROM {'.'.join(map(quote, name.split('.')))}")
        case "Table" | "Any" | "_empty":
            return lake.existing(name).current()
    raise ConfigurationError(
        f"{transform.spec.python} wants {name} as {said}, which Muxly cannot make",
        do="annotate it as pyarrow.Table, pandas.DataFrame or duckdb.DuckDBPyRelation",
        where=f"transform {transform.name}",
    )


@contextmanager
def _importable(folder: Path | None) -> Iterator[None]:
    entry = str(folder.resolve()) if folder else ""
    added = bool(entry) and entry not in sys.path
    if added:
        sys.path.insert(0, entry)
    try:
        yield
    finally:
        if added and entry in sys.path:
            sys.path.remove(entry)


def _function(target: str, transform: Transform, folder: Path | None) -> Callable[..., Any]:
    module_name, _, function_name = target.partition(":")
    where = f"transform {transform.name}"
    _forget_other_projects(module_name, folder)
    try:
        with _blamed(target, transform, folder):
            module: ModuleType = importlib.import_module(module_name)
    except MuxlyError as error:
        cause = error.__cause__
        if (
            isinstance(cause, ModuleNotFoundError)
            and cause.name
            and (module_name == cause.name or module_name.startswith(cause.name + "."))
        ):
            do = f"put {module_name.replace('.', '/')}.py into {folder or 'the Python path'}, or install the package that has it"
            raise ConfigurationError(f"there is no Python module {cause.name}", do=do, where=where) from None
        raise
    function = getattr(module, function_name, None)
    if not callable(function):
        raise ConfigurationError(
            f"the module {module_name} has no function {function_name}", do="correct `python: module:function`", where=where
        )
    return typing.cast(Callable[..., Any], function)


def _forget_other_projects(module_name: str, folder: Path | None) -> None:
    """Let a module of this project's folder win over one of the same name that another project loaded into this process."""
    loaded = sys.modules.get(module_name)
    if folder is None or loaded is None:
        return
    base = folder.resolve() / module_name.replace(".", "/")
    own = [path for path in (base.with_suffix(".py"), base / "__init__.py") if path.is_file()]
    if own and Path(getattr(loaded, "__file__", None) or "/").resolve() not in own:
        del sys.modules[module_name]
        importlib.invalidate_caches()


@contextmanager
def _blamed(target: str, transform: Transform, folder: Path | None) -> Iterator[None]:
    """An error in people's own code names their file and line, not ours."""
    try:
        yield
    except MuxlyError:
        raise
    except Exception as error:
        said = "".join(traceback.format_exception_only(error)).strip().splitlines()[-1]
        raise MuxlyError(
            f"{target} failed: {said}",
            do="correct the function, then run it again",
            where=f"transform {transform.name}{_line(error, folder)}",
        ) from error


def _line(error: Exception, folder: Path | None) -> str:
    if isinstance(error, SyntaxError) and error.filename:
        return f", {Path(error.filename).name} line {error.lineno}"
    frames = traceback.extract_tb(error.__traceback__)
    inside = [frame for frame in frames if folder and Path(frame.filename).resolve().is_relative_to(folder.resolve())]
    theirs = inside or [f for f in frames if f.filename != __file__ and not f.filename.startswith("<frozen")]
    return f", {Path(theirs[-1].filename).name} line {theirs[-1].lineno}" if theirs else ""
