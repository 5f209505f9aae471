"""A manifest as a connector: a Connector class made from a YAML file."""

import difflib
from collections.abc import Iterator
from functools import lru_cache, reduce
from operator import or_
from pathlib import Path
from typing import Annotated, Any, ClassVar

import pyarrow as pa
from pydantic import AfterValidator, Field, SecretStr, create_model

from muxly_dagster import auth
from muxly_dagster.connector import Batch, Connector, Cursor, PullSettings, Stream
from muxly_dagster.decoding import declared_field
from muxly_dagster.errors import ConfigurationError, MuxlyError
from muxly_dagster.http import Http
from muxly_dagster.manifest.expressions import ABSENT, Context, render
from muxly_dagster.manifest.judging import judge
from muxly_dagster.manifest.loading import read_manifest, url_mistakes
from muxly_dagster.manifest.runner import build_request, read_stream
from muxly_dagster.manifest.schema import ApiKeyKind, ApiVersion, Input, Manifest, StreamSpec, parse_duration
from muxly_dagster.resource import CheckResult

_IN_FLIGHT = 16
_MODELS: dict[str, type[Any]] = {"none": auth.NoAuth, "bearer": auth.Bearer, "api_key": auth.ApiKey, "basic": auth.Basic}


class ManifestConnector(Connector):
    """A connector that does what its manifest says. `load_manifest` makes the subclasses, with the manifest's inputs as fields."""

    manifest: ClassVar[Manifest]
    path: ClassVar[Path]

    def stream(self, pull: PullSettings) -> Stream:
        """Describe the stream as the manifest declares it."""
        return self._describe(pull.stream, self._spec(pull))

    def streams(self) -> list[Stream]:
        """Every stream of the manifest."""
        return [self._describe(name, spec) for name, spec in self.manifest.streams.items()]

    def pull(self, pull: PullSettings, cursor: Cursor | None, known: pa.Schema | None) -> Iterator[Batch]:
        """Read the stream's news."""
        spec = self._spec(pull)
        with self._http() as http:
            try:
                yield from read_stream(http, spec, self._context(), cursor, known, judge(self.manifest.errors), self._in_flight())
            except MuxlyError as error:
                if isinstance(error, ConfigurationError):
                    raise
                error.what = f"{self.id} {pull.stream}: {error.what}"
                raise

    def test_connection(self) -> CheckResult:
        """Send the manifest's `check` request, or ask for the first page of its first stream."""
        spec = self.manifest.check or next(iter(self.manifest.streams.values())).request
        request = build_request(spec, self._context())
        tried = f"{request.method} {request.url or '/'}"
        try:
            with self._http() as http:
                response = http.request(request)
        except MuxlyError as error:
            return CheckResult("failed", tried, error.what, error.do)
        return CheckResult("ok", tried, f"answered {response.reason}")

    def _spec(self, pull: PullSettings) -> StreamSpec:
        spec = self.manifest.streams.get(pull.stream)
        if spec is None:
            names = list(self.manifest.streams)
            close = difflib.get_close_matches(pull.stream, names, 1)
            do = f"did you mean `{close[0]}`?" if close else f"there are {', '.join(names)}"
            raise ConfigurationError(f"{self.id} has no stream {pull.stream!r}", do=do)
        return spec

    def _describe(self, name: str, spec: StreamSpec) -> Stream:
        types = [declared_field(column, type_) for column, type_ in spec.types.items()]
        return Stream(
            name=name,
            key=tuple(spec.key),
            sync=spec.sync.kind,
            schema=pa.schema(types) if types else None,
            contract=spec.contract,
            description=spec.description or spec.title,
        )

    def _http(self) -> Http:
        return Http(
            self._address(),
            auth=self._auth(),
            limits=self.manifest.limits,
            max_body=self.manifest.max_answer,
            headers={"Accept": "application/json"},
            hosts=self.manifest.hosts,
            judge=judge(self.manifest.errors),
            secrets=[s.get_secret_value() for n in self.manifest.config if isinstance(s := getattr(self, n), SecretStr)],
            concurrency=_IN_FLIGHT,
        )

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

    def _auth(self) -> auth.Auth:
        """The credentials, sent where the manifest says the API looks for them."""
        given: auth.Auth = self.auth  # type: ignore[attr-defined]
        if isinstance(given, auth.ApiKey):
            kind = next((k for k in self.manifest.auth.values() if isinstance(k, ApiKeyKind)), None)
            if kind is not None:
                place = {name: getattr(kind, name) for name in ("into", "name", "prefix") if name not in given.model_fields_set}
                return given.model_copy(update=place)
        return given

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


@lru_cache(64)
def _load(path: Path, _changed: int, _size: int) -> type[Connector]:
    return _build(path, read_manifest(path))


def _build(path: Path, manifest: Manifest) -> type[Connector]:
    fields: dict[str, Any] = {"auth": _auth_field(manifest), "base_url": _address_field(manifest)}
    fields |= {name: _input_field(each) for name, each in manifest.config.items()}
    name = "".join(part.capitalize() for part in manifest.id.split("_"))
    made: type[ManifestConnector] = create_model(name, __base__=ManifestConnector, __module__=__name__, __doc__=manifest.title, **fields)
    made.id, made.title, made.manifest, made.path = manifest.id, manifest.title, manifest, path
    return made


def _auth_field(manifest: Manifest) -> tuple[Any, Any]:
    kinds = list(dict.fromkeys(kind.kind for kind in manifest.auth.values())) or ["none"]
    models = [_MODELS[kind] for kind in kinds]
    annotation: Any = models[0] if len(models) == 1 else Annotated[reduce(or_, models), Field(discriminator="kind")]
    default: Any = auth.NoAuth() if "none" in kinds else ...
    return annotation, Field(default, description=f"How to sign in: {' or '.join(kinds)}.")


def _address_field(manifest: Manifest) -> tuple[Any, Any]:
    if manifest.base_url == "${config.base_url}" and "base_url" not in manifest.config:
        return str, Field(..., description="The API's address.")
    return str, Field("", description=f"Another address than {manifest.base_url}.")


def _input_field(each: Input) -> tuple[Any, Any]:
    types: dict[str, Any] = {"string": str, "integer": int, "number": float, "boolean": bool, "list": list[str]}
    annotation = SecretStr if each.secret else Annotated[str, AfterValidator(_duration)] if each.type == "duration" else types[each.type]
    if each.required:
        return annotation, Field(..., description=each.title or each.description)
    default = SecretStr(each.default) if each.secret and isinstance(each.default, str) else each.default
    kind = annotation if default is not None else annotation | None
    return kind, Field(default, description=each.title or each.description, validate_default=True)


def _duration(text: str) -> str:
    parse_duration(text)
    return text
