"""A configured thing that Dagster knows as a resource: the common ground of connectors and destinations.

Dagster's own pythonic resources write every field into the code location's snapshot, which the web UI shows, and
know neither secrets nor nested models. This class keeps pydantic's typed fields and tells Dagster only the masked form.
It is the one place that touches Dagster's private resource state (`dagster._config.pythonic_config.resource`, 1.13).
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, Self

import dagster as dg
from dagster._config.pythonic_config.conversion_utils import _curry_config_schema
from dagster._config.pythonic_config.resource import ConfigurableResourceFactoryState
from pydantic import BaseModel, ConfigDict


@dataclass(frozen=True, slots=True)
class CheckResult:
    """What `muxly check` learnt by trying a source or destination.

    `tried` says what was done ("GET /account"), `what` how it ended, `do` the next step when it failed.
    """

    status: Literal["ok", "failed"]
    tried: str
    what: str = ""
    do: str = ""


class MuxlyResource(dg.ConfigurableResource[Any]):
    """Frozen pydantic model and Dagster resource in one. Unknown fields are refused; `SecretStr` fields stay masked."""

    model_config = ConfigDict(extra="forbid", frozen=True, arbitrary_types_allowed=False, populate_by_name=True)

    def __init__(self, **data: Any) -> None:
        BaseModel.__init__(self, **data)
        masked: Mapping[str, Any] = self.model_dump(mode="json", by_alias=True)
        schema = dg.Field(dg.Permissive(), default_value=masked)  # type: ignore[no-untyped-call]
        self._state__internal__ = ConfigurableResourceFactoryState(
            nested_partial_resources={},
            resolved_config_dict=dict(masked),
            config_schema=_curry_config_schema(schema, masked),
            schema=schema,
            nested_resources={},
            resource_context=None,
        )

    def _initialize_and_run(self, context: Any) -> Self:
        """Hand the live object to assets: Dagster would rebuild it from the masked form."""
        return self
