"""A small catalog of its own for tests of projects: a connector, a destination and two steps that do nothing."""

import textwrap
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, ClassVar, Literal, TypeVar

import pyarrow as pa
from pydantic import Field, SecretStr, model_validator

from muxly_dagster import catalog
from muxly_dagster.assembly import Assembly, load_assembly
from muxly_dagster.auth import Auth, NoAuth
from muxly_dagster.connector import Batch, Connector, Cursor, PullSettings, Stream
from muxly_dagster.destination import Delivery, Destination, Receipt
from muxly_dagster.errors import ConfigurationError, Problem
from muxly_dagster.project.checks import did_you_mean
from muxly_dagster.resource import CheckResult
from muxly_dagster.transform import Step

_Class = TypeVar("_Class")

DEALS = Stream("deals", ("id",), schema=pa.schema([("id", pa.int64()), ("amount", pa.float64())]), contract="freeze")


class CrmPull(PullSettings):
    properties: list[str] = Field([], description="The properties to read.")
    page: int = 100


class Crm(Connector):
    id: ClassVar[str] = "crm_api"
    title: ClassVar[str] = "CRM"
    Pull: ClassVar[type[PullSettings]] = CrmPull

    auth: Auth = NoAuth()
    region: Literal["eu", "us"] = "eu"
    pages: int = 10
    gently: bool = False
    password: SecretStr = SecretStr("")

    @model_validator(mode="after")
    def _careless(self) -> "Crm":
        if self.password.get_secret_value() == "letmein":
            raise ValueError("the password letmein is too short")
        return self

    def stream(self, pull: PullSettings) -> Stream:
        if pull.stream == "deals":
            return DEALS
        if pull.stream == "nothing":
            raise ConfigurationError([Problem("stream", "there is no stream nothing", "name another")])
        return Stream(pull.stream, ("id",))

    def pull(self, pull: PullSettings, cursor: Cursor | None, known: pa.Schema | None) -> Iterator[Batch]:
        yield from ()

    def test_connection(self) -> CheckResult:
        return CheckResult("ok", "nothing")


class Box(Destination):
    type: ClassVar[str] = "box"
    title: ClassVar[str] = "Box"

    colour: Literal["red", "blue"] = "red"
    size: int = 1
    key: SecretStr = SecretStr("")

    def deliver(self, delivery: Delivery) -> Receipt:
        return Receipt(len(delivery.rows))

    def check(self) -> CheckResult:
        return CheckResult("ok", "nothing")


class Keep(Step):
    """Keeps columns; written `keep: [a, b]` or with fields."""

    name: ClassVar[str] = "keep"
    columns: list[str]

    @classmethod
    def parse(cls, settings: Any) -> "Keep":
        return cls.model_validate({"columns": settings} if isinstance(settings, list) else settings)

    def sql(self, source: str, schema: pa.Schema) -> str:
        return f"select {', '.join(self.columns)} from {source}"


class Limit(Step):
    """Keeps the first rows."""

    name: ClassVar[str] = "limit"
    rows: int = 10

    def sql(self, source: str, schema: pa.Schema) -> str:
        return f"select * from {source} limit {self.rows}"


class Shelf:
    """The catalog that holds these, and manifests by path."""

    connectors: ClassVar[dict[str, type[Connector]]] = {"crm_api": Crm}
    destinations: ClassVar[dict[str, type[Destination]]] = {"box": Box}
    steps: ClassVar[dict[str, type[Step]]] = {"keep": Keep, "limit": Limit}

    def connector_class(self, name: str, folder: Path) -> type[Connector]:
        return catalog.connector_class(name, folder) if catalog.is_manifest_path(name) else _find(self.connectors, name)

    def destination_class(self, name: str) -> type[Destination]:
        return _find(self.destinations, name)

    def step_class(self, name: str) -> type[Step]:
        return _find(self.steps, name)


def _find(known: Mapping[str, _Class], name: str) -> _Class:
    if name not in known:
        raise ConfigurationError(f"there is no {name!r}", do=did_you_mean(name, known))
    return known[name]


def write(folder: Path, name: str = "muxly.yaml", text: str = "") -> Path:
    """Put a file into the folder, with the text's own indentation taken away."""
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(textwrap.dedent(text).lstrip("\n"), "utf-8")
    return path


def assembled(folder: Path, text: str, **environ: str) -> Assembly:
    """The assembly of a muxly.yaml with this text."""
    return load_assembly(write(folder, text=text), environ, Shelf())
