"""A manifest as a connector: a Connector class made from a YAML file."""

import datetime as dt
import difflib
import logging
from collections.abc import Iterator, Mapping
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import Annotated, Any, ClassVar

import pyarrow as pa
from pydantic import AfterValidator, Field, SecretStr, create_model

from muxly_dagster.connector import Action, Batch, Connector, Cursor, Declaration, Metadata, PullSettings, Stream
from muxly_dagster.decoding import declared_field, parse_path
from muxly_dagster.errors import ConfigurationError, MuxlyError
from muxly_dagster.http import Http, Judge
from muxly_dagster.manifest.acting import act, input_schema
from muxly_dagster.manifest.asking.judging import judge
from muxly_dagster.manifest.asking.requests import build_request
from muxly_dagster.manifest.asking.signing import account_name, auth_field, signed_in
from muxly_dagster.manifest.checking.addresses import url_mistakes
from muxly_dagster.manifest.checking.loading import Written, check_manifest, read_manifest
from muxly_dagster.manifest.language.expressions import ABSENT, Context, render, text_of
from muxly_dagster.manifest.reading.runner import read_stream
from muxly_dagster.manifest.reading.taking import Source
from muxly_dagster.manifest.schema import ApiVersion, DeltaSync, Input, Manifest, RequestSpec, StreamSpec, parse_duration
from muxly_dagster.resource import CheckResult

_log = logging.getLogger("muxly.manifest")

_IN_FLIGHT = 16
_SOON = dt.timedelta(days=90)


class ManifestConnector(Connector):
    """A connector that does what its manifest says. `load_manifest` makes the subclasses, with the manifest's inputs as fields."""

    manifest: ClassVar[Manifest]
    path: ClassVar[Path]

    @classmethod
    def declaration(cls) -> Declaration:
        """What the manifest says of itself, its streams and its actions."""
        manifest = cls.manifest
        version = manifest.api_version
        dated = version if isinstance(version, ApiVersion) else ApiVersion(version=version or "")
        return Declaration(
            streams=tuple(cls._describe(name, spec) for name, spec in manifest.streams.items()),
            actions=tuple(Action(name, spec.title, input_schema(spec)) for name, spec in manifest.actions.items()),
            metadata=Metadata(api_version=dated.version, sunset=dated.sunset, limits=tuple(map(str, manifest.limits))),
            description=manifest.description,
            docs=manifest.docs,
        )

    def stream(self, pull: PullSettings) -> Stream:
        """Describe the stream as the manifest declares it."""
        return self._describe(pull.stream, self._spec(pull))

    def streams(self) -> list[Stream]:
        """Every stream of the manifest."""
        return [self._describe(name, spec) for name, spec in self.manifest.streams.items()]

    def pull(self, pull: PullSettings, cursor: Cursor | None, known: pa.Schema | None) -> Iterator[Batch]:
        """Read the stream's news."""
        self._spec(pull)
        if warning := _ending(self.manifest, dt.datetime.now(dt.UTC).date()):
            _log.warning("%s: %s", self.id, warning)
        with self._http() as http:
            source = Source(http, self.manifest, self._context(), self._judge(), self.services, self._in_flight())
            try:
                yield from read_stream(source, pull.stream, cursor, known)
            except MuxlyError as error:
                if isinstance(error, ConfigurationError):
                    raise
                error.what = f"{self.id} {pull.stream}: {error.what}"
                raise

    def test_connection(self) -> CheckResult:
        """Send the manifest's `check` request, or ask for the first page of its first stream."""
        request = build_request(self._check(), self._context())
        tried = f"{request.method} {request.url or '/'}"
        try:
            with self._http() as http:
                response = http.request(request)
        except MuxlyError as error:
            return CheckResult("failed", tried, error.what, error.do)
        return CheckResult("ok", tried, f"answered {response.reason}")

    def metadata(self) -> Metadata:
        """The account as the answer to `check` names it, and what the manifest says of the API."""
        declared, check = self.declaration().metadata, self.manifest.check
        if check is None or check.account is None:
            return declared
        with self._http() as http:
            found = parse_path(check.account).first(http.request(build_request(check, self._context())).json())
        return replace(declared, account="" if found is None else text_of(found))

    def actions(self) -> list[Action]:
        """The manifest's actions."""
        return list(self.declaration().actions)

    def act(self, action: str, inputs: Mapping[str, Any]) -> Any:
        """Send the action's request. Raises ConfigurationError, SignInError, SourceError, RetryLater."""
        spec = self.manifest.actions.get(action)
        if spec is None:
            raise _unknown(f"{self.id} has no action {action!r}", action, list(self.manifest.actions))
        with self._http() as http:
            return act(http, spec, action, inputs, self._context(), self.services)

    def _check(self) -> RequestSpec:
        """The cheapest request there is."""
        streams = sorted(self.manifest.streams.values(), key=lambda spec: spec.for_each is not None)
        return self.manifest.check or streams[0].request

    def _spec(self, pull: PullSettings) -> StreamSpec:
        spec = self.manifest.streams.get(pull.stream)
        if spec is None:
            raise _unknown(f"{self.id} has no stream {pull.stream!r}", pull.stream, list(self.manifest.streams))
        return spec

    @staticmethod
    def _describe(name: str, spec: StreamSpec) -> Stream:
        types = [declared_field(column, type_) for column, type_ in spec.types.items()]
        return Stream(
            name=name,
            key=tuple(spec.key),
            sync=spec.sync.kind,
            schema=pa.schema(types) if types else None,
            contract=spec.contract,
            description=spec.description or spec.title,
            deletes=spec.deletes is not None or (isinstance(spec.sync, DeltaSync) and spec.sync.deletes is not None),
        )

    def _http(self) -> Http:
        address, context, given = self._address(), self._context(), self.auth  # type: ignore[attr-defined]
        secrets = [s.get_secret_value() for n in self.manifest.config if isinstance(s := getattr(self, n), SecretStr)]
        return Http(
            address,
            auth=signed_in(self.manifest, given, context),
            limits=self.manifest.limits,
            max_body=self.manifest.max_answer,
            headers={"Accept": "application/json"},
            hosts=self.manifest.hosts,
            judge=self._judge(),
            secrets=secrets,
            concurrency=_IN_FLIGHT,
            turns=self.services.turns,
            account=account_name(self.manifest, address, given, secrets),
        )

    def _judge(self) -> Judge | None:
        expiring = any(isinstance(spec.sync, DeltaSync) for spec in self.manifest.streams.values())
        return judge(self.manifest.errors, expiring=expiring)

    def _address(self) -> str:
        """The source's own base URL, or the manifest's, which must lead to one of its `hosts` whatever it is filled in with."""
        template = self.manifest.base_url
        own = getattr(self, "base_url", "")
        if own:
            return str(own)
        address = render(template, self._context(), into_path="${" in template)
        if address is ABSENT:
            raise ConfigurationError(f"{self.id} does not know its address", do=f"set what base_url names: {template}")
        for _, what, do in url_mistakes((), address, self.manifest.hosts):
            raise ConfigurationError(f"{self.id}: {what}", do=do)
        return str(address)

    def _context(self) -> Context:
        values = {name: getattr(self, name) for name in self.manifest.config}
        version = self.manifest.api_version
        return {
            "config": {name: v.get_secret_value() if isinstance(v, SecretStr) else v for name, v in values.items()},
            "api_version": version.version if isinstance(version, ApiVersion) else version,
        }

    def _in_flight(self) -> int:
        return min([_IN_FLIGHT, *(limit.concurrency for limit in self.manifest.limits if limit.concurrency)])


def load_manifest(path: Path) -> type[Connector]:
    """The connector a manifest describes. Raises ConfigurationError with every problem and its place."""
    path = path.resolve()
    try:
        stat = path.stat()
    except OSError:
        return _build(path, read_manifest(path))  # says what is wrong
    return _load(path, stat.st_mtime_ns, stat.st_size)


def inline_manifest(document: Written, shown: str, file: Path) -> type[Connector]:
    """The connector that a part of the project in `file` describes; `shown` names it in warnings. Raises ConfigurationError."""
    return _build(file, check_manifest(document, shown))


@lru_cache(64)
def _load(path: Path, _changed: int, _size: int) -> type[Connector]:
    return _build(path, read_manifest(path))


def _build(path: Path, manifest: Manifest) -> type[Connector]:
    fields: dict[str, Any] = {"auth": auth_field(manifest), "base_url": _address_field(manifest)}
    fields |= {name: _input_field(each) for name, each in manifest.config.items()}
    name = "".join(part.capitalize() for part in manifest.id.split("_"))
    made: type[ManifestConnector] = create_model(name, __base__=ManifestConnector, __module__=__name__, __doc__=manifest.title, **fields)
    made.id, made.title, made.manifest, made.path, made.example = manifest.id, manifest.title, manifest, path, manifest.example
    return made


def _address_field(manifest: Manifest) -> tuple[Any, Any]:
    if manifest.base_url == "${config.base_url}" and "base_url" not in manifest.config:
        return str, Field(..., description="The API's address.")
    return str, Field("", description=f"Another address than {manifest.base_url}.")


def _input_field(each: Input) -> tuple[Any, Any]:
    types: dict[str, Any] = {
        "string": str,
        "integer": int,
        "number": float,
        "boolean": bool,
        "list": list[str],
        "object": dict[str, Any],
    }
    annotation = SecretStr if each.secret else Annotated[str, AfterValidator(_duration)] if each.type == "duration" else types[each.type]
    if each.required:
        return annotation, Field(..., description=each.title or each.description)
    default = SecretStr(each.default) if each.secret and isinstance(each.default, str) else each.default
    kind = annotation if default is not None else annotation | None
    return kind, Field(default, description=each.title or each.description, validate_default=True)


def _duration(text: str) -> str:
    parse_duration(text)
    return text


def _unknown(what: str, name: str, known: list[str]) -> ConfigurationError:
    close = difflib.get_close_matches(name, known, 1)
    return ConfigurationError(what, do=f"did you mean `{close[0]}`?" if close else f"there are {', '.join(known) or 'none'}")


def _ending(manifest: Manifest, today: dt.date) -> str:
    """That the API's version ends soon, or has ended; empty while there is time."""
    version = manifest.api_version
    if not isinstance(version, ApiVersion) or version.sunset is None or version.sunset - today > _SOON:
        return ""
    ends = "ended" if version.sunset <= today else "ends"
    return f"version {version.version} of the API {ends} on {version.sunset}; look for a newer version of this connector"
