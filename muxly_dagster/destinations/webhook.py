"""The `webhook` destination: records sent to an HTTP address, one per request or several.

Requests carry an id that is the same in every repetition, so a receiver that remembers ids takes each record once.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal
from urllib.parse import parse_qsl, urlsplit

from pydantic import ConfigDict, Field, SecretStr, field_validator

from muxly_dagster import records
from muxly_dagster.auth import Auth, NoAuth
from muxly_dagster.destination import Delivery, Destination, Receipt, Refusal
from muxly_dagster.errors import ConfigurationError, MuxlyError, RetryLater, SourceError
from muxly_dagster.http import Http, Request, Response, Retries, Timeouts, Verdict, sign_in
from muxly_dagster.resource import CheckResult

_CHUNK_ROWS = 1_000
_EXCERPT = 200
_NOT_ABOUT_THE_RECORD = frozenset({401, 403, 408, 425, 429})
_NOBODY_THERE = frozenset({404, 405, 410})
_REFUSALS_OF_NOBODY = 20
"""So many records refused with "nothing is here", and none accepted, say that the address is wrong, not the records."""

_SECRET_SEGMENT = 16


@dataclass(frozen=True, slots=True)
class _Parcel:
    """The records of one request."""

    id: str
    records: Sequence[dict[str, Any]]

    @property
    def upto(self) -> int:
        seq: int = self.records[-1]["metadata"]["seq"]
        return seq


@dataclass(slots=True)
class _Progress:
    """What has been answered for, in the order of the records."""

    accepted: int = 0
    refused: list[Refusal] = field(default_factory=list)
    statuses: set[int] = field(default_factory=set)
    upto: int | None = None


class Webhook(Destination):
    """An HTTP address that takes records as JSON."""

    type: ClassVar[str] = "webhook"
    title: ClassVar[str] = "Webhook"
    batch_rows: ClassVar[int] = 10_000

    # The address of a webhook is often its password: pydantic must not quote it.
    model_config = ConfigDict(hide_input_in_errors=True)

    url: SecretStr = Field(description="Where to send records. Kept like a password, because many webhook addresses are one.")
    method: Literal["POST", "PUT"] = Field("POST", description="The HTTP method.")
    headers: dict[str, SecretStr] = Field({}, description="Headers to send along.")
    auth: Auth = Field(NoAuth(), description="How to sign in.")
    batch: int = Field(1, ge=1, le=10_000, description="Records per request. 1 sends a record as it is, more send them as a list.")
    wrap: str = Field("records", description='The name of the list when `batch` is above 1 (`{"records": [...]}`); empty for a bare list.')
    concurrency: int = Field(8, ge=1, le=100, description="Requests under way at the same time. 1 keeps the records in order.")
    timeout: float = Field(30.0, gt=0, description="Seconds to wait for an answer.")
    retries: Retries = Field(Retries(attempts=4, cap=15.0), description="How a passing trouble (429, 5xx, no connection) is met.")

    @field_validator("url")
    @classmethod
    def _http_address(cls, url: SecretStr) -> SecretStr:
        parts = urlsplit(url.get_secret_value())
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ValueError("the address must start with https:// or http:// and name a host")
        return url

    def deliver(self, delivery: Delivery) -> Receipt:
        """Send the records; answers for those up to the first that could not be settled.

        A 4xx refuses a record; of a refused batch, the records at fault are found by halving it.
        """
        done = _Progress()
        retry: RetryLater | None = None
        with self._client() as http:
            try:
                requests = (self._request(parcel) for parcel in self._parcels(delivery))
                for response in http.each(requests, self.concurrency):
                    self._settle(http, response, done)
            except MuxlyError as error:
                explained = _as_contract(error)
                if done.upto is None:
                    raise explained from None
                # What is settled is answered for; the road comes back with the rest, and meets the error first if it stays.
                retry = explained if isinstance(explained, RetryLater) else None
                return Receipt(done.accepted, tuple(done.refused), self._detail(done), upto=done.upto, retry=retry)
        return Receipt(done.accepted, tuple(done.refused), self._detail(done))

    def check(self) -> CheckResult:
        """Send a HEAD request, which delivers nothing. Any answer but a refused sign-in will do."""
        tried = f"HEAD {self._host}"
        with self._client(judge=lambda response: "sign_in" if response.status in (401, 403) else "skip") as http:
            try:
                response = http.request(Request("HEAD", self.url.get_secret_value()))
            except MuxlyError as error:
                return CheckResult("failed", tried, error.what, error.do)
        return CheckResult("ok", tried, f"answered {response.reason}; no record was sent")

    def public_name(self, table: str) -> str:
        """The host; the rest of the address may be secret."""
        return self._host

    @property
    def _host(self) -> str:
        parts = urlsplit(self.url.get_secret_value())
        return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}"

    def _client(self, judge: Any = None) -> Http:
        parts = urlsplit(self.url.get_secret_value())
        secrets = [s for s in parts.path.split("/") if len(s) >= _SECRET_SEGMENT] + [v for _, v in parse_qsl(parts.query) if v]
        headers = {name: value.get_secret_value() for name, value in self.headers.items()}
        return Http(
            self.url.get_secret_value(),
            auth=sign_in(self.auth),
            timeouts=Timeouts(connect=min(10.0, self.timeout), read=self.timeout, total=self.timeout),
            retries=self.retries,
            headers=headers,
            judge=judge or _judge,
            secrets=[*secrets, *(v for v in headers.values() if len(v) >= _SECRET_SEGMENT)],
            concurrency=self.concurrency,
        )

    def _detail(self, done: _Progress) -> dict[str, Any]:
        return {"host": self._host, "statuses": sorted(done.statuses)}

    def _parcels(self, delivery: Delivery) -> Iterator[_Parcel]:
        size = max(self.batch, _CHUNK_ROWS // self.batch * self.batch)
        for start in range(0, len(delivery.rows), size):
            rows = delivery.rows.slice(start, size)
            shown = records.to_records(rows, connector_id=delivery.connector_id, table=delivery.table, table_id=delivery.table_id)
            for first in range(0, len(shown), self.batch):
                yield _parcel(f"{delivery.id}:{delivery.table_id}", shown[first : first + self.batch])

    def _request(self, parcel: _Parcel) -> Request:
        body: Any = parcel.records[0] if self.batch == 1 else list(parcel.records)
        if self.batch > 1 and self.wrap:
            body = {self.wrap: body}
        identity = parcel.records[0]["id"] if self.batch == 1 else parcel.id
        headers = {"Content-Type": "application/json", "Idempotency-Key": identity, "webhook-id": identity}
        return Request(self.method, self.url.get_secret_value(), headers=headers, content=records.to_json(body), tag=parcel)

    def _settle(self, http: Http, response: Response, done: _Progress) -> None:
        """Book an answer; a refused batch is taken apart until each record at fault stands alone."""
        parcel: _Parcel = response.request.tag
        done.statuses.add(response.status)
        if response.status < 300:
            done.accepted += len(parcel.records)
        elif response.status < 400:
            raise ConfigurationError(f"the webhook has moved ({response.reason})", do="set `url` to its new address", where=self._host)
        elif len(parcel.records) > 1:
            middle = len(parcel.records) // 2
            series = parcel.id.rpartition(":")[0]
            for half in (parcel.records[:middle], parcel.records[middle:]):
                self._settle(http, http.request(self._request(_parcel(series, half))), done)
        else:
            said = response.excerpt(_EXCERPT)
            done.refused.append(Refusal(parcel.upto, f"{response.reason}: {said}" if said else response.reason))
            if len(done.refused) >= _REFUSALS_OF_NOBODY and not done.accepted and done.statuses <= _NOBODY_THERE:
                done.upto = None
                raise ConfigurationError(
                    f"nothing takes records at this address: {response.reason} for each of the first {len(done.refused)}",
                    do="correct `url` and `method`",
                    where=self._host,
                )
        done.upto = parcel.upto


def _parcel(series: str, shown: Sequence[dict[str, Any]]) -> _Parcel:
    return _Parcel(f"{series}:{shown[0]['metadata']['seq']}-{shown[-1]['metadata']['seq']}", shown)


def _judge(response: Response) -> Verdict | None:
    """Refusals and redirects are read here; everything else means what it usually means."""
    return "skip" if 300 <= response.status < 500 and response.status not in _NOT_ABOUT_THE_RECORD else None


def _as_contract(error: MuxlyError) -> MuxlyError:
    """An answer that is no use (not HTTP, a bad certificate, 501) is for a person to look at."""
    if isinstance(error, SourceError):
        return ConfigurationError(f"the webhook's answer is of no use: {error.what}", do=error.do or "correct `url`", where=error.where)
    return error
