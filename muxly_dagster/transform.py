"""The contract of a transform: from tables of the lake to a table of the lake.

A transform is written as `sql`, as `steps` or as `python`. A step is one verb (rename, filter, mask ...) that compiles to SQL;
steps are chained, so they run as one DuckDB query.
"""

from abc import ABC, abstractmethod
from typing import Any, ClassVar

import pyarrow as pa
from pydantic import BaseModel, ConfigDict


class Step(BaseModel, ABC):
    """One verb of a `steps` transform: fields are its settings, `sql` its meaning.

    Subclasses set `name`, the word in muxly.yaml. A step is written `{name: SETTINGS}`; `parse` turns the settings as written
    into fields where a shorter form reads better (`drop: [a, b]`).
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: ClassVar[str]

    @classmethod
    def parse(cls, settings: Any) -> "Step":
        """Build the step from what stands under its name. Raises pydantic.ValidationError."""
        return cls.model_validate(settings)

    @abstractmethod
    def sql(self, source: str, schema: pa.Schema) -> str:
        """A DuckDB SELECT over `source` (an identifier, ready to use) whose columns are `schema`.

        Raises ConfigurationError when the step names a column that `schema` lacks.
        """
