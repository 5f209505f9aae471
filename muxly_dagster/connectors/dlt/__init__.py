"""The dlt connector: any source or resource written for dlt, iterated in a process and an environment of its own."""

import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

import pyarrow as pa
from pydantic import Field, PrivateAttr, SecretStr, field_validator

from muxly_dagster import child
from muxly_dagster.connector import Batch, Connector, Cursor, Declaration, PullSettings, Stream
from muxly_dagster.errors import ConfigurationError, MuxlyError
from muxly_dagster.measures import parse_duration
from muxly_dagster.project.checks import did_you_mean
from muxly_dagster.project_paths import InProject
from muxly_dagster.resource import CheckResult

_SCRIPT = Path(__file__).with_name("inside.py")
_INSTALL = (
    "install `muxly-dagster[dlt]`, or make an environment beside the project (`python3 -m venv .venv-dlt`, then "
    "`.venv-dlt/bin/pip install dlt`) and set `python: .venv-dlt/bin/python`"
)


class DltPull(PullSettings):
    """How a pull reads a resource."""

    sync: Literal["full", "cursor"] | None = Field(
        None,
        description="full replaces what is in the lake, cursor adds to it; by the resource's write disposition unless told otherwise.",
    )


class Dlt(Connector):
    """Any source or resource written for dlt, in a process of its own. It needs Python with dlt: install `muxly-dagster[dlt]`, or name
    another environment's interpreter with `python`."""

    id: ClassVar[str] = "dlt"
    title: ClassVar[str] = "dlt source"
    Pull: ClassVar[type[PullSettings]] = DltPull
    example: ClassVar[Mapping[str, Any]] = {
        "source": "shop:shop_source",
        "secrets": {"api_key": "${DLT_API_KEY}"},
        "python": ".venv-dlt/bin/python",
        "pulls": ["orders"],
    }

    source: Annotated[str, InProject()] = Field(
        pattern=r"^[^:]*[\w.]+:[\w.]+$",
        description="`module:attribute`: a source, a resource, or a function that makes one; `sources/shop:shop_source` lies in a folder.",
    )
    arguments: dict[str, Any] = Field({}, description="Arguments by name, where `source` names a function.")
    secrets: dict[str, SecretStr] = Field({}, description="Arguments that nobody may see.")
    python: Annotated[str, InProject()] = Field(
        "", description="The interpreter of an environment that has dlt; Muxly's own unless told otherwise."
    )
    silence: str = Field("10m", description="How long the process may say nothing before it is ended.")

    @field_validator("silence")
    @classmethod
    def _is_duration(cls, text: str) -> str:
        parse_duration(text)
        return text

    @classmethod
    def declaration(cls) -> Declaration:
        """Which streams there are, only the source knows."""
        return Declaration(syncs=("full", "cursor"), docs="https://dlthub.com/docs/general-usage/source")

    _resources: dict[str, Any] = PrivateAttr(default_factory=dict)

    # ---- the contract ----

    def stream(self, pull: PullSettings) -> Stream:
        """The resource of this name; what it says of itself only dlt can tell."""
        return Stream(pull.stream, sync=_asked(pull) or "cursor")

    def resolve(self, pull: PullSettings) -> Stream:
        """The resource with its key and write disposition."""
        # All pulls of a source ask the same, and every answer costs a process that imports dlt and the source.
        found = self._resources or {each["name"]: each for each in self._discovered(f"dlt {pull.stream}")}
        self._resources.update(found)
        if pull.stream not in found:
            raise ConfigurationError(f"{self._named} has no resource {pull.stream!r}", do=did_you_mean(pull.stream, found))
        return _stream(found[pull.stream], _asked(pull))

    def streams(self) -> list[Stream]:
        """The source's resources."""
        return [_stream(each, None) for each in self._discovered("dlt")]

    def pull(self, pull: PullSettings, cursor: Cursor | None, known: pa.Schema | None) -> Iterator[Batch]:
        """Read the resource. dlt's state, as it is at the end, is the cursor: before the end it says nothing reliable."""
        work = self._work(f"dlt {pull.stream}", "read", stream=pull.stream, sync=_asked(pull), state=cursor)
        yield from child.batches(child.messages(work), known, keep_states=True)

    def test_connection(self) -> CheckResult:
        """Begin to read the first resource."""
        tried = f"read the first record of {self._named}"
        try:
            status = child.ask(self._work("dlt", "check"), "CONNECTION_STATUS")
        except MuxlyError as error:
            return CheckResult.failed(tried, error)
        return CheckResult("ok", tried, status["message"])

    # ---- how ----

    @property
    def _named(self) -> str:
        """`module:attribute` without the folder that the project's own place puts before it."""
        return Path(self.source).name

    def _discovered(self, name: str) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = child.ask(self._work(name, "discover"), "CATALOG")["streams"]
        return found

    def _work(self, name: str, command: str, **more: Any) -> child.Work:
        if not self.python and not child.has_module("dlt"):
            raise ConfigurationError("dlt is not installed beside Muxly", do=_INSTALL)
        secrets = {argument: secret.get_secret_value() for argument, secret in self.secrets.items()}
        folder = Path(self.source).absolute().parent
        arguments = {**self.arguments, **secrets}
        return child.Work(
            name=name,
            package="dlt",
            python=self.python or sys.executable,
            script=_SCRIPT,
            folder=folder,
            request={"command": command, "source": self._named, "arguments": arguments, "folder": str(folder)} | more,
            secrets=tuple(secrets.values()),
            # dlt tells its makers of every run unless told otherwise.
            environ={"RUNTIME__DLTHUB_TELEMETRY": "false"},
            silence=parse_duration(self.silence).total_seconds(),
        )


def _asked(pull: PullSettings) -> Literal["full", "cursor"] | None:
    return pull.sync if isinstance(pull, DltPull) else None


def _stream(described: Mapping[str, Any], asked: Literal["full", "cursor"] | None) -> Stream:
    sync = asked or ("full" if described["disposition"] == "replace" else "cursor")
    return Stream(described["name"], key=tuple(described["key"]), sync=sync, schema=child.hinted(described["json_schema"]))
