"""Enrichment: more of each record of a page, asked for by requests of its own, one for each record or for many keys at once.

Records are handled as JSON texts, so that what is not enriched goes through byte by byte and no number is ever printed anew.
"""

import itertools
import logging
from collections import OrderedDict
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import closing
from dataclasses import replace
from decimal import Decimal
from typing import Any

import msgspec

from muxly_dagster.decoding import salvage
from muxly_dagster.errors import SourceError
from muxly_dagster.http import Http, Judge, Request, Response
from muxly_dagster.manifest.answers import jsontext
from muxly_dagster.manifest.asking.paging import put
from muxly_dagster.manifest.asking.requests import build_request
from muxly_dagster.manifest.language.conditions import parse_condition
from muxly_dagster.manifest.language.expressions import ABSENT, Context, render, text_of
from muxly_dagster.manifest.schema import EnrichBatch, EnrichSpec
from muxly_dagster.records import to_json

_log = logging.getLogger("muxly.manifest")

_GONE = frozenset({404, 410})
_REMEMBERED = 8 * 2**20
_IN_FLIGHT = 16


class Enricher:
    """Enriches the pages of one stream. `in_flight` requests are sent side by side, less where the client's limits say so.

    A record without a key, one whose condition does not hold and one that is broken stay as they are; so does one whose partner does
    not exist (404, 410, not in a batch's answer) or whose answer the manifest's error rules skip, with a warning for the first of a kind.
    What was asked once is not asked again, as far as some megabytes of memory go. That is for partners that many records share: what is
    asked for by the records' `own` key is asked anew on every page, since a record that comes again has changed meanwhile.
    """

    def __init__(
        self,
        http: Http,
        specs: Sequence[EnrichSpec],
        context: Context,
        judge: Judge | None,
        own: Sequence[str] = (),
        *,
        in_flight: int = _IN_FLIGHT,
    ) -> None:
        self._steps = [_Step(http, spec, context, judge, in_flight, shared=list(own) != [spec.key]) for spec in specs]

    def enrich(self, page: bytes, records: str) -> bytes:
        """The JSON page with its records enriched, at the same JSONPath. A page that cannot be read comes back as it is.

        Raises what the client raises, and SourceError for an answer that cannot be joined to its record.
        """
        return jsontext.change_records(page, records, self._enrich) if self._steps else page

    def _enrich(self, texts: list[bytes]) -> list[bytes]:
        for step in self._steps:
            texts = step.run(texts)
        return texts


class _Memory:
    """Answers by what was asked for them, the latest few megabytes of them; None is known to have no partner."""

    def __init__(self) -> None:
        self._answers: OrderedDict[bytes, bytes | None] = OrderedDict()
        self._size = 0

    def __contains__(self, asked: bytes) -> bool:
        return asked in self._answers

    def get(self, asked: bytes) -> bytes | None:
        return self._answers.get(asked)

    def keep(self, asked: bytes, answer: bytes | None) -> None:
        self._answers[asked] = answer
        self._size += len(asked) + len(answer or b"")
        while self._size > _REMEMBERED and len(self._answers) > 1:
            old, gone = self._answers.popitem(last=False)
            self._size -= len(old) + len(gone or b"")


class _Step:
    """One entry of `enrich`."""

    def __init__(self, http: Http, spec: EnrichSpec, context: Context, judge: Judge | None, in_flight: int, *, shared: bool) -> None:
        self._http, self._spec, self._context, self._judge, self._in_flight = http, spec, context, judge, in_flight
        self._condition: Callable[[Any], bool] | None = parse_condition(spec.when) if spec.when else None
        self._memory, self._shared = _Memory(), shared
        self._warned: set[int] = set()

    def run(self, texts: list[bytes]) -> list[bytes]:
        """The records with what this step adds."""
        batch = self._spec.batch
        wanted = self._by_request(texts) if batch is None else self._by_key(texts)
        found: dict[bytes, bytes | None] = {asked: self._memory.get(asked) for asked in wanted if asked in self._memory}
        new = [asked for asked in wanted if asked not in found]
        for asked, partner in self._ask_each(new, wanted) if batch is None else self._ask_batches(batch, new, wanted):
            found[asked] = partner
            if self._shared:
                self._memory.keep(asked, partner)
        enriched = list(texts)
        for asked, (_, indices) in wanted.items():
            partner = found[asked]
            if partner is not None:
                for index in indices:
                    enriched[index] = self._join(texts[index], partner)
        return enriched

    # ---- what to ask ----

    def _by_request(self, texts: list[bytes]) -> dict[bytes, tuple[Request, list[int]]]:
        """The requests to send, each with the records it is for."""
        wanted: dict[bytes, tuple[Request, list[int]]] = {}
        for index, record, key in self._keyed(texts):
            context = {**self._context, "key": key, "record": record}
            if render(self._spec.request.path, context) is ABSENT:
                continue  # an address that the record does not have
            request = replace(build_request(self._spec.request, context), expected=_GONE)
            asked = to_json([request.method, request.url, request.params, request.headers, request.json, request.content])
            wanted.setdefault(asked, (request, []))[1].append(index)
        return wanted

    def _by_key(self, texts: list[bytes]) -> dict[bytes, tuple[Any, list[int]]]:
        """The keys to ask for, each with the records it is for."""
        wanted: dict[bytes, tuple[Any, list[int]]] = {}
        for index, _, key in self._keyed(texts):
            wanted.setdefault(text_of(key).encode(), (key, []))[1].append(index)
        return wanted

    def _keyed(self, texts: list[bytes]) -> Iterator[tuple[int, dict[str, Any], Any]]:
        for index, text in enumerate(texts):
            if salvage.broken(text) is not None:
                continue  # the decoder will set it aside
            try:
                record = jsontext.values(text)
            except ValueError:
                continue
            key = _field(record, self._spec.key)
            if not isinstance(key, str | int | Decimal) or isinstance(key, bool) or key == "":
                continue
            if self._condition is None or self._condition(msgspec.json.decode(text)):
                yield index, record, key

    # ---- asking ----

    def _ask_each(self, new: list[bytes], wanted: dict[bytes, tuple[Request, list[int]]]) -> Iterator[tuple[bytes, bytes | None]]:
        for asked, response in zip(new, self._send(wanted[asked][0] for asked in new), strict=True):
            yield asked, self._partner(response, response.content) if self._is_answer(response) else None

    def _ask_batches(
        self, batch: EnrichBatch, new: list[bytes], wanted: dict[bytes, tuple[Any, list[int]]]
    ) -> Iterator[tuple[bytes, bytes | None]]:
        groups = [new[start : start + batch.size] for start in range(0, len(new), batch.size)]
        requests = (self._batch_request(batch, [wanted[asked][0] for asked in group]) for group in groups)
        for group, response in zip(groups, self._send(requests), strict=True):
            partners = self._partners(batch, response) if self._is_answer(response) else {}
            yield from ((asked, partners.get(asked)) for asked in group)

    def _batch_request(self, batch: EnrichBatch, keys: list[Any]) -> Request:
        request = build_request(self._spec.request, {**self._context, "keys": keys})
        if batch.into is None:
            return request
        each = (render(batch.each, {**self._context, "key": key}) for key in keys)
        return put(request, batch.into, [entry for entry in each if entry is not ABSENT])

    def _send(self, requests: Iterator[Request]) -> Generator[Response, None, None]:
        one = list(itertools.islice(requests, 2))
        if len(one) == 1:
            yield self._http.request(one[0])  # no threads for it
            return
        with closing(_closable(self._http.each(itertools.chain(one, requests), self._in_flight))) as responses:
            yield from responses

    def _is_answer(self, response: Response) -> bool:
        if response.status < 400 and (self._judge is None or self._judge(response) != "skip"):
            return True
        if response.status not in self._warned:
            self._warned.add(response.status)
            _log.warning("%s answered %s: this record, and others like it, stay as they are", response.where, response.reason)
        return False

    # ---- joining ----

    def _partner(self, response: Response, text: bytes) -> bytes | None:
        """What is taken of an answer (or of one record of it); None for nothing."""
        if not text.strip():
            return None
        try:
            return jsontext.first(text, self._spec.select)
        except ValueError:
            response.json()  # which says best what is wrong with it
            raise SourceError(
                "the answer holds numbers that JSON does not know", do="report it to the service", where=response.where
            ) from None

    def _partners(self, batch: EnrichBatch, response: Response) -> dict[bytes, bytes | None]:
        try:
            texts = jsontext.records(response.content, batch.records)
        except ValueError:
            response.json()
            raise SourceError(
                "the answer holds numbers that JSON does not know", do="report it to the service", where=response.where
            ) from None
        if texts is None:
            raise SourceError(
                f"the answer has no records at {batch.records}: {response.excerpt(80)}",
                do="correct `records` of the stream's `enrich.batch`",
                where=response.where,
            )
        found: dict[bytes, bytes | None] = {}
        for text in texts:
            key = jsontext.first(text, batch.by)
            if key is not None and key != b"null":
                found[text_of(jsontext.values(key)).encode()] = self._partner(response, text)
        return found

    def _join(self, text: bytes, partner: bytes) -> bytes:
        fields = jsontext.fields(text)
        if self._spec.into != "$":
            fields[self._spec.into] = msgspec.Raw(partner)
        elif partner[:1] == b"{":
            fields.update(jsontext.fields(partner))
        elif partner != b"null":
            raise SourceError(
                f"an answer for {self._spec.key} is no object, whose fields could go over the record's own: {salvage.begin(partner)}",
                do="take another part of it by `select`, or put it under a field by `into: NAME`",
            )
        return msgspec.json.encode(fields)


def _field(record: dict[str, Any], name: str) -> Any:
    """The record's field of this name, or the one it leads to: `owner.id`."""
    if name in record:
        return record[name]
    value: Any = record
    for part in name.split("."):
        value = value.get(part) if isinstance(value, dict) else None
    return value


def _closable(responses: Iterator[Response]) -> Generator[Response, None, None]:
    yield from responses
