"""The `webhook` destination: records sent to an HTTP address, one per request or several.

Requests carry an id that is the same in every repetition, so a receiver that remembers ids takes each record once. See `packing` for what
is sent, `round` for the order of requests and what their answers settle, `answers` for what they mean.
"""

import time
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any, ClassVar, Literal, Self
from urllib.parse import parse_qsl, urlsplit

from pydantic import ConfigDict, Field, SecretStr, field_validator, model_validator

from muxly_dagster import signature as signatures
from muxly_dagster.auth import Auth, NoAuth
from muxly_dagster.destination import Delivery, Destination, Guarantee, Message, Receipt
from muxly_dagster.destinations.webhook.answers import judge, meaning
from muxly_dagster.destinations.webhook.packing import CloudEvents, Form, Packing
from muxly_dagster.destinations.webhook.round import Order, Round, written
from muxly_dagster.errors import MuxlyError
from muxly_dagster.http import AddressGuard, Http, Judge, Outgoing, Request, Retries, Timeouts, sign_in
from muxly_dagster.messages import Template, TemplateText, TemplateTree
from muxly_dagster.resource import CheckResult
from muxly_dagster.signature import Signature

_SECRET_SEGMENT = 16
"""Parts of an address, and values of headers, that are so long are kept out of texts like passwords."""


class Webhook(Destination):
    """An HTTP address that takes records as JSON."""

    type: ClassVar[str] = "webhook"
    title: ClassVar[str] = "Webhook"
    guarantee: ClassVar[Guarantee] = "at least once, with the same id"
    batch_rows: ClassVar[int] = 10_000
    templates: ClassVar[tuple[str, ...]] = ("body",)

    # The address of a webhook is often its password: pydantic must not quote it.
    model_config = ConfigDict(hide_input_in_errors=True)

    url: SecretStr = Field(description="Where to send records. Kept like a password, because many webhook addresses are one.")
    method: Literal["POST", "PUT", "PATCH"] = Field("POST", description="The HTTP method.")
    path: TemplateText = Field(
        "", description="A template of a path, or of a query, below `url` for each record.", examples=["/deals/{{ id }}"]
    )
    deletes: Literal["send", "delete"] = Field(
        "send", description="send: what the source deleted is sent like any other change. delete: with the method DELETE, to its `path`."
    )
    headers: dict[str, SecretStr] = Field({}, description="Headers to send along.")
    auth: Auth = Field(NoAuth(), description="How to sign in.")
    signature: Signature | None = Field(None, description="How to sign requests, so that the receiver knows who sent them.")
    secrets: tuple[SecretStr, ...] = Field(
        (), max_length=2, description="The secret to sign with; two while the second takes the place of the first."
    )
    form: Form = Field(
        "record", description="What a record looks like: its whole record form, its data alone, or an event of CloudEvents 1.0."
    )
    cloudevents: CloudEvents = Field(CloudEvents(), description="How events are made, with `form: cloudevents`.")
    body: TemplateTree = Field(
        None, description="The body as a template, in place of `form`.", examples=[{"text": "{{ name }} is worth {{ amount }}"}]
    )
    batch: int = Field(1, ge=1, le=10_000, description="Records per request. 1 sends a record as it is, more send them as a list.")
    wrap: str = Field("records", description='The name of the list when `batch` is above 1 (`{"records": [...]}`); empty for a bare list.')
    order: Order = Field(
        "key",
        description="key: changes of one key arrive in order, other keys side by side. strict: one request at a time, in order. none: any.",
    )
    concurrency: int = Field(8, ge=1, le=100, description="Requests under way at the same time.")
    timeout: float = Field(30.0, gt=0, description="Seconds to wait for an answer.")
    retries: Retries = Field(Retries(attempts=4, cap=15.0), description="How a passing trouble (429, 5xx, no connection) is met.")
    allow_private: bool = Field(False, description="Send to addresses that are not on the public internet, too.")
    allow: tuple[str, ...] = Field(
        (), description="Networks and hosts to send to all the same.", examples=[["10.0.0.0/8", "hook.internal"]]
    )

    @field_validator("url")
    @classmethod
    def _http_address(cls, url: SecretStr) -> SecretStr:
        parts = urlsplit(url.get_secret_value())
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ValueError("the address must start with https:// or http:// and name a host")
        return url

    @field_validator("allow")
    @classmethod
    def _networks_and_hosts(cls, allow: tuple[str, ...]) -> tuple[str, ...]:
        AddressGuard(allow)
        return allow

    @model_validator(mode="after")
    def _agrees(self) -> Self:
        if self.batch > 1 and (self.path or self.deletes == "delete"):
            raise ValueError("`path` and `deletes: delete` speak of one record; leave `batch` at 1")
        if self.deletes == "delete" and not self.path:
            raise ValueError("`deletes: delete` needs a `path`, such as /deals/{{ id }}: a DELETE names what goes by its address")
        if self.batch > 1 and self.form == "cloudevents" and self.cloudevents.mode == "binary":
            raise ValueError("CloudEvents have no binary mode for batches; use `mode: structured`, or leave `batch` at 1")
        if (self.signature is None) == bool(self.secrets):
            raise ValueError("`signature` and `secrets` go together: how to sign, and with what")
        if self.signature is not None and len(self.secrets) > 1 and not signatures.carries_several(self.signature):
            raise ValueError(f"a request signed like {self.signature.kind} has room for one signature; give one of `secrets`")
        return self

    def deliver(self, delivery: Delivery) -> Receipt:
        """Send the records; answers for those up to the first that could not be settled, and says which were taken beyond it.

        A 4xx refuses a record; of a refused batch, the records at fault are found by halving it. Raises GoneError for 410.
        """
        of_records = bool(self.path)
        sent = Round(delivery, self._packing(delivery), self.order, partial(meaning, host=self._host, of_records=of_records), self._host)
        with self._client(judge) as http:
            http.flow(sent, 1 if self.order == "strict" else self.concurrency)
        return sent.receipt()

    def check(self) -> CheckResult:
        """Send a HEAD request, which delivers nothing. Any answer but a refused sign-in will do."""
        tried = f"HEAD {self._host}"
        try:
            if self.signature is not None:
                for secret in self.secrets:
                    signatures.check_secret(self.signature, secret.get_secret_value())
            with self._client(lambda response: "sign_in" if response.status in (401, 403) else "skip") as http:
                response = http.request(Request("HEAD", self._address))
        except MuxlyError as error:
            return CheckResult.failed(tried, error)
        return CheckResult("ok", tried, f"answered {response.reason}; no record was sent")

    def render(self, delivery: Delivery) -> Sequence[Message]:
        """The body of each request."""
        return [Message(seqs, text) for seqs, text in written(delivery, self._packing(delivery))]

    @property
    def passes_deletes(self) -> bool:
        """Whether records are deleted at the receiver."""
        return self.deletes == "delete"

    def public_name(self, table: str) -> str:
        """The host; the rest of the address may be secret."""
        return self._host

    @property
    def _host(self) -> str:
        parts = urlsplit(self.url.get_secret_value())
        return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}"

    @property
    def _address(self) -> str:
        """The address without user and password. Raises ConfigurationError where its host can be read in several ways."""
        url = self.url.get_secret_value() if self.allow_private else AddressGuard(self.allow).plain(self.url.get_secret_value())
        parts = urlsplit(url)
        return parts._replace(netloc=parts.netloc.rpartition("@")[2]).geturl()

    def _packing(self, delivery: Delivery) -> Packing:
        """How this delivery's records go into requests. Raises ConfigurationError for a template that names what no record has."""
        given: Mapping[str, Any] = {rule: own["body"] for rule, own in delivery.templates.items() if "body" in own}
        bodies = {**dict.fromkeys((*delivery.rules, ""), self.body), **given}
        for template in (self.body, *given.values()):
            Template(template).check(delivery, "body")
        for setting, text in (("path", self.path), ("source", self.cloudevents.source), ("type", self.cloudevents.type)):
            Template(text).check(delivery, setting)
        return Packing(
            url=self._address,
            method=self.method,
            series=f"{delivery.id}:{delivery.table_id}",
            form=self.form,
            batch=self.batch,
            wrap=self.wrap,
            events=self.cloudevents,
            path=self.path,
            delete=self.deletes == "delete",
            keep_type=any(name.lower() == "content-type" for name in self.headers),
            templates=bodies,
        )

    def _client(self, judge: Judge) -> Http:
        url = self.url.get_secret_value()
        parts = urlsplit(url)
        secrets = [s for s in parts.path.split("/") if len(s) >= _SECRET_SEGMENT] + [v for _, v in parse_qsl(parts.query) if v]
        headers = {name: value.get_secret_value() for name, value in self.headers.items()}
        guard = None if self.allow_private else AddressGuard(self.allow)
        return Http(
            url if guard is None else guard.plain(url),
            auth=sign_in(self.auth),
            timeouts=Timeouts(connect=min(10.0, self.timeout), read=self.timeout, total=self.timeout),
            retries=self.retries,
            headers=headers,
            judge=judge,
            secrets=[
                *secrets,
                *(value for value in headers.values() if len(value) >= _SECRET_SEGMENT),
                *(secret.get_secret_value() for secret in self.secrets),
            ],
            concurrency=self.concurrency,
            signer=None if self.signature is None else partial(self._signed, self.signature),
            guard=guard,
        )

    def _signed(self, scheme: Signature, asked: Outgoing) -> Mapping[str, str]:
        """The headers that sign one attempt, with its own time."""
        return signatures.sign(
            scheme,
            [secret.get_secret_value() for secret in self.secrets],
            asked.method,
            asked.address,
            asked.content or b"",
            _now(),
            identity=asked.headers.get("webhook-id", "check"),
        )


def _now() -> float:
    """The time that requests are signed with, in seconds since 1970."""
    return time.time()
