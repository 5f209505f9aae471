"""A configured thing that Dagster knows as a resource: the common ground of connectors and destinations.

Dagster's own pythonic resources write every field into the code location's snapshot, which the web UI shows, and
know neither secrets nor nested models. This class keeps pydantic's typed fields and tells Dagster only the masked form.
It is the one place that touches Dagster's private resource state (`dagster._config.pythonic_config.resource`, 1.13).
"""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal, Self

import dagster as dg
from dagster._config.pythonic_config.conversion_utils import _curry_config_schema
from dagster._config.pythonic_config.resource import ConfigurableResourceFactoryState
from pydantic import BaseModel, ConfigDict

from muxly_dagster.errors import ConfigurationError, MuxlyError

_USER = re.compile(r"(?<=:)//[^/?#\s]*@")


@dataclass(frozen=True, slots=True)
class CheckResult:
    """What `muxly check` learnt by trying a source or destination.

    `tried` says what was done ("GET /account"), `what` how it ended, `do` the next step when it failed.
    """

    status: Literal["ok", "failed"]
    tried: str
    what: str = ""
    do: str = ""

    @classmethod
    def failed(cls, tried: str, error: MuxlyError) -> "CheckResult":
        """What an error says; of one that holds several problems, each of them and the first one's next step."""
        if isinstance(error, ConfigurationError):
            first = next((problem.do for problem in error.problems), "")
            return cls("failed", tried, "; ".join(problem.what for problem in error.problems), error.do or first)
        return cls("failed", tried, error.what, error.do)


class MuxlyResource(dg.ConfigurableResource[Any]):
    """Frozen pydantic model and Dagster resource in one. Unknown fields are refused; `SecretStr` fields stay masked."""

    model_config = ConfigDict(extra="forbid", frozen=True, arbitrary_types_allowed=False, populate_by_name=True)

    def __init__(self, **data: Any) -> None:
        BaseModel.__init__(self, **data)
        masked: Mapping[str, Any] = _without_passwords(self.model_dump(mode="json", by_alias=True))
        schema = dg.Field(dg.Permissive(), default_value=masked)  # type: ignore[no-untyped-call]
        self._state__internal__ = ConfigurableResourceFactoryState(
            nested_partial_resources={},
            resolved_config_dict=dict(masked),
            config_schema=_curry_config_schema(schema, masked),
            schema=schema,
            nested_resources={},
            resource_context=None,
        )

    @classmethod
    def _is_cm_resource_cls(cls) -> bool:
        """Nothing is opened for a run. Dagster would look among the fields, in a way that warns where a class has none."""
        return False

    def _initialize_and_run(self, context: Any) -> Self:
        """Hand the live object to assets: Dagster would rebuild it from the masked form."""
        return self

    def __repr_args__(self) -> Iterable[tuple[str | None, Any]]:
        """What pydantic shows, and no password that stands in an address."""
        return [(name, _without_passwords(value)) for name, value in super().__repr_args__()]


def _without_passwords(value: Any) -> Any:
    """Plain values, with what signs in left out of every address in them (RFC 3986, 3.2.1)."""
    if isinstance(value, str):
        return _USER.sub("//**********@", value)
    if isinstance(value, Mapping):
        return {key: _without_passwords(each) for key, each in value.items()}
    return [_without_passwords(each) for each in value] if isinstance(value, list) else value
