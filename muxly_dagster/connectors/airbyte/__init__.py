"""The airbyte connector: a low-code manifest of Airbyte's, run by airbyte-cdk in a process and an environment of its own."""

import copy
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

import pyarrow as pa
from pydantic import Field, SecretStr, field_validator

from muxly_dagster import child
from muxly_dagster.connector import Batch, Connector, Cursor, Declaration, PullSettings, Stream
from muxly_dagster.connectors.airbyte.manifest import Manifest, read_manifest
from muxly_dagster.errors import ConfigurationError, MuxlyError
from muxly_dagster.measures import parse_duration
from muxly_dagster.project.checks import did_you_mean
from muxly_dagster.project_paths import InProject
from muxly_dagster.resource import CheckResult

_SCRIPT = Path(__file__).with_name("inside.py")
_INSTALL = (
    "install `muxly-dagster[airbyte]`, or make an environment beside the project (`python3 -m venv .venv-airbyte`, then "
    "`.venv-airbyte/bin/pip install airbyte-cdk`) and set `python: .venv-airbyte/bin/python`"
)


class AirbytePull(PullSettings):
    """How a pull reads a stream."""

    sync: Literal["full", "cursor"] | None = Field(
        None, description="full reads everything every time, cursor what came since; as the manifest says unless told otherwise."
    )


class Airbyte(Connector):
    """A low-code (declarative YAML) manifest of Airbyte's, read by airbyte-cdk in a process of its own. It needs Python with
    airbyte-cdk: install `muxly-dagster[airbyte]`, or name another environment's interpreter with `python`."""

    id: ClassVar[str] = "airbyte"
    title: ClassVar[str] = "Airbyte manifest (low-code)"
    Pull: ClassVar[type[PullSettings]] = AirbytePull
    example: ClassVar[Mapping[str, Any]] = {
        "manifest": "./manifest.yaml",
        "secrets": {"api_key": "${AIRBYTE_API_KEY}"},
        "python": ".venv-airbyte/bin/python",
        "pulls": ["tickets"],
    }

    manifest: Annotated[str, InProject()] = Field(description="The manifest's path.")
    config: dict[str, Any] = Field({}, description="What the manifest reads as `config`, but for secrets.")
    secrets: dict[str, SecretStr] = Field({}, description="Secrets of the `config`; `credentials.api_key` lies within `credentials`.")
    python: Annotated[str, InProject()] = Field(
        "", description="The interpreter of an environment that has airbyte-cdk; Muxly's own unless told otherwise."
    )
    trust: list[str] = Field([], description="Python classes of the manifest's (`class_name`) that may run, such as `components.Signer`.")
    silence: str = Field("10m", description="How long the process may say nothing before it is ended.")

    @field_validator("silence")
    @classmethod
    def _is_duration(cls, text: str) -> str:
        parse_duration(text)
        return text

    @field_validator("config")
    @classmethod
    def _holds_no_code(cls, config: dict[str, Any]) -> dict[str, Any]:
        if hidden := [name for name in config if name.startswith("__")]:
            names = ", ".join(hidden)
            raise ValueError(f"has {names}, by which code gets into a source; put code beside the manifest and name it in `trust`")
        return config

    @field_validator("secrets")
    @classmethod
    def _hide_no_code(cls, secrets: dict[str, SecretStr]) -> dict[str, SecretStr]:
        cls._holds_no_code(dict(secrets))
        return secrets

    @classmethod
    def declaration(cls) -> Declaration:
        """Which streams there are, only the manifest knows."""
        return Declaration(
            syncs=("full", "cursor"), docs="https://docs.airbyte.com/platform/connector-development/config-based/low-code-cdk-overview"
        )

    # ---- the contract ----

    def stream(self, pull: PullSettings) -> Stream:
        """The stream as the manifest names it; where the file is missing, only a pull finds out."""
        path = Path(self.manifest)
        if not path.is_file():
            return Stream(pull.stream, sync=_asked(pull) or "full")
        manifest = read_manifest(path)
        if pull.stream not in manifest.names and not manifest.open_ended:
            what = f"{path} has no stream {pull.stream!r}"
            raise ConfigurationError(what, do=did_you_mean(pull.stream, manifest.names))
        described = manifest.stream(pull.stream)
        if described is None:
            return Stream(pull.stream, sync=_asked(pull) or "full")
        return _stream(pull, described.name, described.key, incremental=described.incremental)

    def resolve(self, pull: PullSettings) -> Stream:
        """The stream as the CDK describes it, where the manifest does not say it plainly."""
        if self._trusted().stream(pull.stream) is not None:
            return self.stream(pull)
        for each in self._discovered(f"airbyte {pull.stream}"):
            if each["name"] == pull.stream:
                return _stream(pull, each["name"], _key_of(each), incremental=each["incremental"])
        raise ConfigurationError(f"{self.manifest} has no stream {pull.stream!r}", do="see `muxly connectors streams`")

    def streams(self) -> list[Stream]:
        """The manifest's streams, those too that it makes while it runs."""
        return [
            Stream(
                each["name"],
                key=_key_of(each),
                sync="cursor" if each["incremental"] else "full",
                schema=child.hinted(each.get("json_schema") or {}),
            )
            for each in self._discovered("airbyte")
        ]

    def pull(self, pull: PullSettings, cursor: Cursor | None, known: pa.Schema | None) -> Iterator[Batch]:
        """Read the stream; the state that the source gives on the way is the cursor."""
        manifest = self._trusted()
        sync = self.resolve(pull).sync
        state = cursor if sync == "cursor" else None
        work = self._work(f"airbyte {pull.stream}", manifest, "read", stream=pull.stream, sync=sync, state=state)
        yield from child.batches(child.messages(work), known, keep_states=sync == "cursor")

    def test_connection(self) -> CheckResult:
        """Run the manifest's own check."""
        tried = f"the check of {Path(self.manifest).name}"
        try:
            status = child.ask(self._work("airbyte", self._trusted(), "check"), "CONNECTION_STATUS")
        except MuxlyError as error:
            return CheckResult.failed(tried, error)
        if status["status"] == "SUCCEEDED":
            return CheckResult("ok", tried, "it succeeded")
        refused = status.get("code") in (401, 403)
        do = "renew the credentials in `secrets`" if refused else "correct `config` and `secrets`, or the manifest"
        return CheckResult("failed", tried, child.shown(status.get("message") or "it failed", self._secrets()), do)

    # ---- how ----

    def _trusted(self) -> Manifest:
        manifest = read_manifest(Path(self.manifest))
        manifest.check_trust(self.trust)
        return manifest

    def _discovered(self, name: str) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = child.ask(self._work(name, self._trusted(), "discover"), "CATALOG")["streams"]
        return found

    def _secrets(self) -> tuple[str, ...]:
        return tuple(secret.get_secret_value() for secret in self.secrets.values())

    def _config(self) -> dict[str, Any]:
        config = copy.deepcopy(self.config)
        for path, secret in self.secrets.items():
            *outer, name = path.split(".")
            within = config
            for part in outer:
                within = within.setdefault(part, {})
                if not isinstance(within, dict):
                    raise ConfigurationError(f"`secrets` has {path}, but {part} of `config` is no map", do="correct one of them")
            within[name] = secret.get_secret_value()
        return config

    def _work(self, name: str, manifest: Manifest, command: str, **more: Any) -> child.Work:
        if not self.python and not child.has_module("airbyte_cdk"):
            raise ConfigurationError("airbyte-cdk is not installed beside Muxly", do=_INSTALL)
        folder = manifest.path.absolute().parent
        request = {"command": command, "manifest": manifest.document, "config": self._config(), "trust": self.trust, "folder": str(folder)}
        return child.Work(
            name=name,
            package="airbyte-cdk",
            python=self.python or sys.executable,
            script=_SCRIPT,
            folder=folder,
            request=request | more,
            secrets=self._secrets(),
            silence=parse_duration(self.silence).total_seconds(),
        )


def _asked(pull: PullSettings) -> Literal["full", "cursor"] | None:
    return pull.sync if isinstance(pull, AirbytePull) else None


def _key_of(described: Mapping[str, Any]) -> tuple[str, ...]:
    """The primary key, unless a part of it lies within an object: such a record cannot be told by its columns."""
    paths = described["key"]
    return tuple(path[0] for path in paths) if all(len(path) == 1 for path in paths) else ()


def _stream(pull: PullSettings, name: str, key: tuple[str, ...], *, incremental: bool) -> Stream:
    asked = _asked(pull)
    if asked == "cursor" and not incremental:
        do = "leave `sync` out, or give the stream an `incremental_sync`"
        raise ConfigurationError(f"the manifest does not say how {name} is read incrementally", do=do)
    return Stream(name, key=key, sync=asked or ("cursor" if incremental else "full"))
