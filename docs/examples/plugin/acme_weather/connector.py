"""Pulls the observations of Acme's weather stations."""

from collections.abc import Iterator
from typing import Annotated, Any, ClassVar

import pyarrow as pa
from pydantic import Field

from muxly_dagster.auth import Bearer, CustomAuth
from muxly_dagster.connector import Batch, Connector, Cursor, PullSettings, Stream, Unreadable
from muxly_dagster.decoding import PageDecoder
from muxly_dagster.errors import ConfigurationError, MuxlyError
from muxly_dagster.http import Http, sign_in
from muxly_dagster.resource import CheckResult

OBSERVATIONS = Stream("observations", key=("id",), sync="full", description="What each station measured last.")


class Weather(Connector):
    """Acme's weather stations."""

    id: ClassVar[str] = "weather"
    title: ClassVar[str] = "Acme Weather"
    example: ClassVar[dict[str, Any]] = {"pulls": {"observations": {}}}

    auth: Annotated[Bearer | CustomAuth, Field(discriminator="kind")] = Field(description="A token, or a badge: `use: weather_badge`.")
    base_url: str = Field("https://weather.acme.example/v1", description="The API's address.")

    def stream(self, pull: PullSettings) -> Stream:
        """There is one."""
        if pull.stream != OBSERVATIONS.name:
            raise ConfigurationError(f"weather has no stream {pull.stream!r}", do="there is observations")
        return OBSERVATIONS

    def streams(self) -> list[Stream]:
        """The same for everybody."""
        return [OBSERVATIONS]

    def pull(self, pull: PullSettings, cursor: Cursor | None, known: pa.Schema | None) -> Iterator[Batch]:
        """Every station, page by page."""
        # Learns the records' shape, keeps numbers exact, and sets aside what cannot be read.
        decoder = PageDecoder("$.observations", known=known, envelope=["$.next_page"])
        with self._http() as http:
            page: Any = 1
            while page is not None:
                (page,) = decoder.decode(http.get("/observations", {"page": page}).content).envelope
                rows, unread = decoder.flush()
                yield Batch(rows, unreadable=tuple(Unreadable(text, reason) for text, reason in unread))

    def test_connection(self) -> CheckResult:
        """Ask who is signed in."""
        try:
            with self._http() as http:
                http.get("/account")
        except MuxlyError as error:
            return CheckResult("failed", "GET /account", error.what, error.do)
        return CheckResult("ok", "GET /account")

    def _http(self) -> Http:
        # Token sources are asked for headers at every request; the client hides their secrets, waits for rate limits and retries.
        return Http(self.base_url, auth=sign_in(self.auth), turns=self.services.turns)
