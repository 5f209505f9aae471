"""The JSON Schema of a stream: inline or in a file, read and checked when the project is loaded."""

from pathlib import Path
from typing import Any

from muxly_dagster.errors import ConfigurationError, Problem
from muxly_dagster.project.checks import problem_at
from muxly_dagster.project.locate import dotted
from muxly_dagster.project.parse import parse_file

_FIELD = "json_schema"


def read_schema(said: Any) -> Any:
    """The schema that is said, or that the file at the path holds which is said (JSON, YAML or TOML).

    Raises ConfigurationError for what is no JSON Schema, with the place of the mistake: in the file, or in the project.
    """
    if isinstance(said, str) and said:
        file = Path(said)
        root = parse_file(file, str(file))
        schema = root.plain()
        if (found := _mistake(schema)) is not None:
            path, what = found
            raise ConfigurationError([problem_at(root, path, what, _DO)])
        return schema
    if isinstance(said, dict) and (found := _mistake(said)) is not None:
        path, what = found
        raise ConfigurationError([Problem(dotted((_FIELD, *path)), what, _DO)])
    return said


_DO = "correct the schema (https://json-schema.org)"


def _mistake(schema: dict[str, Any]) -> tuple[list[str | int], str] | None:
    """Where in a schema the first mistake is, and what is wrong there."""
    import jsonschema_rs  # where no stream has a schema, nobody should wait for it

    try:
        jsonschema_rs.validator_for(schema, offline=True)
    except jsonschema_rs.ValidationError as error:
        return list(error.instance_path), f"is no JSON Schema: {error.message}"
    except (jsonschema_rs.ReferencingError, ValueError, TypeError, OverflowError) as error:
        return [], f"is no JSON Schema: {error}"
    return None
