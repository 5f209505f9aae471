"""What the stand-ins of web services share: a server, tokens that run out and are renewed, and answers that fail when they are asked to."""

import json
import threading
from abc import abstractmethod
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self
from urllib.parse import parse_qs

import muxly_dagster.connectors
from muxly_dagster.connector import Connector
from muxly_dagster.manifest.connector import load_manifest
from muxly_dagster_tests.http.server import Asked, Server, json_answer

BUILT_IN = Path(muxly_dagster.connectors.__path__[0])


class Service:
    """A provider as `muxly_dagster.testing.connectors.Provider` has it, but for its records.

    With `refreshing`, connectors sign in by a refresh token, which `/token` takes; else by the access token itself.
    """

    base = ""
    """The path that the API lies under."""

    manifest: Path
    pull: Mapping[str, Any]

    def __init__(self, *, refreshing: bool = False) -> None:
        self._refreshing = refreshing
        self._access, self._refresh, self._client = "acc3ss-t0ken-1", "r3fresh-t0ken", "cl1ent-s3cret"
        self.secrets: Sequence[str] = [self._access, self._refresh, self._client]
        self.extra = False
        self._failing: int | None = None
        self._left: int | None = None
        self._lock = threading.RLock()
        self._server = Server(self._reply)

    @property
    def url(self) -> str:
        return self._server.url

    @property
    def asked(self) -> list[Asked]:
        """Every request so far."""
        return self._server.asked

    def __enter__(self) -> Self:
        self._server.__enter__()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._server.__exit__(kind, error, trace)

    def connector(self, *, wrong: bool = False, **fields: Any) -> Connector:
        auth: dict[str, Any] = {"kind": "bearer", "token": "wr0ng-t0ken" if wrong else self._access}
        if self._refreshing:
            refresh = "wr0ng-t0ken" if wrong else self._refresh
            auth = {"kind": "oauth2", "client_id": "app", "client_secret": self._client, "refresh_token": refresh}
            auth["token_url"] = f"{self.url}/token"
        return load_manifest(self.manifest)(base_url=self.url + self.base, auth=auth, **fields)

    def drift(self) -> None:
        self.extra = True

    def fail_once(self, status: int) -> None:
        self._failing = status

    def break_after(self, requests: int) -> None:
        self._left = requests

    def mend(self) -> None:
        self._left = None

    # ---- answers

    @abstractmethod
    def answer(self, asked: Asked) -> bytes:
        """The answer to a request that is signed in. `asked.path` lies below `base`."""

    @abstractmethod
    def is_for_records(self, asked: Asked) -> bool:
        """Whether the request asks for records of the stream under test."""

    def refusal(self, status: int) -> bytes:
        """How the provider says no."""
        return json_answer({"error": {"code": status, "message": "no"}}, status, Retry_After="0")

    def _reply(self, asked: Asked) -> bytes:
        with self._lock:
            if asked.path == "/token":
                return self._token(asked)
            if asked.headers.get("authorization") != f"Bearer {self._access}":
                return self.refusal(401)
            if self.is_for_records(asked):
                if self._failing is not None:
                    status, self._failing = self._failing, None
                    return self.refusal(status)
                if self._left is not None:
                    self._left -= 1
                    if self._left < 0:
                        return self.refusal(400)
            return self.answer(asked)

    def _token(self, asked: Asked) -> bytes:
        form = parse_qs(asked.body.decode())
        if form.get("refresh_token") != [self._refresh] or form.get("client_secret") != [self._client]:
            return json_answer({"error": "invalid_grant"}, 400)
        self._access = f"acc3ss-t0ken-{len(self.secrets)}"
        self.secrets = [*self.secrets, self._access]
        return json_answer({"access_token": self._access, "token_type": "Bearer", "expires_in": 3600})


def paged(found: Sequence[Any], start: int, size: int) -> tuple[Sequence[Any], int | None]:
    """One page, and where the next one begins."""
    return found[start : start + size], start + size if len(found) > start + size else None


def body(asked: Asked) -> dict[str, Any]:
    """The request's JSON."""
    found: dict[str, Any] = json.loads(asked.body) if asked.body else {}
    return found
