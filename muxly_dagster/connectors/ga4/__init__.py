"""The ga4 connector: reports of a Google Analytics 4 property, day by day, and what happens there now.

Reports come from the Data API, v1beta. A pull reads whole days in the property's own time zone, and the last few once more, since
Google corrects them for two or three days.
"""

import datetime as dt
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Annotated, Any, ClassVar

import pyarrow as pa
from pydantic import Field, field_validator, model_validator

from muxly_dagster.auth import OAuth2, ServiceAccount
from muxly_dagster.connector import Batch, Connector, Cursor, Declaration, Metadata, PullSettings, Stream, Sync
from muxly_dagster.connectors.ga4.quota import QUOTAS
from muxly_dagster.connectors.ga4.reports import DATE, OWN, READY_MADE, Report
from muxly_dagster.errors import ConfigurationError, MuxlyError
from muxly_dagster.measures import parse_duration
from muxly_dagster.project.checks import did_you_mean
from muxly_dagster.resource import CheckResult

if TYPE_CHECKING:
    from muxly_dagster.connectors.ga4.client import Client

# Whatever imports Google's SDK (0.3 s) is imported where a property is asked, not where a project is loaded.

_LOCAL = re.compile(r"http://(127\.0\.0\.1|localhost|\[::1\]):\d+")
_DATE = re.compile(r"\d{4}-\d{2}-\d{2}")
_HOST = re.compile(r"(https://)?[\w.-]+(:\d+)?")


class Ga4Pull(PullSettings):
    """What a pull reads: a ready-made report, or one of your own."""

    dimensions: list[str] = Field([], description="Dimensions of a report of your own. `date` is always among them and need not be named.")
    metrics: list[str] = Field([], description="Metrics of a report of your own.")
    dimension_filter: dict[str, Any] = Field({}, description="Which rows count, as the JSON form of a FilterExpression.")
    metric_filter: dict[str, Any] = Field({}, description="Which rows are given, by their metrics, as the JSON form of a FilterExpression.")
    realtime: bool = Field(False, description="Report about the last 30 minutes instead of whole days.")
    start: dt.date | str = Field("90d", description="The first day of the first pull: a date, or how long ago.")
    lookback: str = Field("3d", description="Whole days before the last one to read again, since Google still corrects them. `0d`: none.")
    slice: str = Field("7d", description="Days in one report of a longer stretch. Made smaller where Google samples.")
    page_rows: int = Field(100_000, ge=1, le=250_000, description="Rows in one page of an answer.")
    keep_empty_rows: bool = Field(False, description="Also rows whose metrics are all zero.")
    currency: str = Field("", pattern=r"^([A-Z]{3})?$", description="Currency of money, such as EUR; the property's own otherwise.")

    @field_validator("start")
    @classmethod
    def _is_a_day(cls, said: dt.date | str) -> dt.date | str:
        return said if isinstance(said, dt.date) or not _DATE.fullmatch(said) else dt.date.fromisoformat(said)

    @field_validator("lookback", "slice", "start")
    @classmethod
    def _is_days(cls, said: Any) -> Any:
        if isinstance(said, str):
            _days(said)
        return said

    @model_validator(mode="after")
    def _agrees(self) -> "Ga4Pull":
        if not _days(self.slice):
            raise ValueError("`slice` must be one day or more")
        if (self.dimensions or self.dimension_filter or self.metric_filter) and self.stream == OWN and not self.metrics:
            raise ValueError("has no `metrics`; name at least one")
        return self


class Ga4(Connector):
    """Reports of a Google Analytics 4 property."""

    id: ClassVar[str] = "ga4"
    title: ClassVar[str] = "Google Analytics 4"
    Pull: ClassVar[type[PullSettings]] = Ga4Pull
    example: ClassVar[Mapping[str, Any]] = {
        "property": "properties/123456789",
        "auth": {"kind": "service_account", "key": "${GOOGLE_KEY}"},
        "pulls": {"traffic": {}, "pages": {}, "campaigns": {"dimensions": ["sessionCampaignName"], "metrics": ["sessions", "keyEvents"]}},
    }

    property: str | int = Field(description="The property's number, also as `properties/123456789`: Admin > Property details.")
    auth: Annotated[ServiceAccount | OAuth2, Field(discriminator="kind")] = Field(
        ServiceAccount(), description="A service account, or a user by OAuth; the machine's own identity unless told otherwise."
    )
    quota_floor: float = Field(0.1, ge=0, lt=1, description="Share of each of the property's quotas that is left for others.")
    endpoint: str = Field("", description="Another address of the API, such as a proxy; `http://` is for this machine alone.")

    @field_validator("property")
    @classmethod
    def _is_a_number(cls, said: str | int) -> str:
        number = str(said).strip().removeprefix("properties/")
        if not number.isdecimal():
            raise ValueError(
                "must be the property's number, such as 123456789; a measurement id (G-...) names a stream of it, not the property"
            )
        return f"properties/{number}"

    @field_validator("endpoint")
    @classmethod
    def _is_safe(cls, said: str) -> str:
        if said and not _LOCAL.fullmatch(said) and not _HOST.fullmatch(said):
            raise ValueError("must be a host such as analyticsdata.googleapis.com, or http://127.0.0.1:PORT on this machine")
        return said

    @classmethod
    def declaration(cls) -> Declaration:
        """The ready-made reports."""
        streams = [_stream(name, report) for name, report in READY_MADE.items()]
        return Declaration(
            (*streams, _own("Your own dimensions and metrics")),
            metadata=Metadata(api_version="v1beta", limits=QUOTAS),
            description="Daily reports of a Google Analytics 4 property, and what happens there now.",
            docs="https://developers.google.com/analytics/devguides/reporting/data/v1",
        )

    def stream(self, pull: PullSettings) -> Stream:
        """A ready-made report, or the one that the pull describes."""
        return _stream(pull.stream, _report(_settings(pull)))

    def pull(self, pull: PullSettings, cursor: Cursor | None, known: pa.Schema | None) -> Iterator[Batch]:
        """Read the days from the look-back on, or the last 30 minutes.

        Ends with RetryLater where a quota is used up or down to its floor; what was read until then counts. Raises SignInError,
        SourceError, and ConfigurationError for names that the property does not have.
        """
        from muxly_dagster.connectors.ga4.reading import Reading, Wish, read_realtime

        settings = _settings(pull)
        report = _report(settings)
        through = self._through(cursor)
        with self._client() as client:
            if report.realtime:
                yield from read_realtime(client, report)
                return
            wish = Wish(
                start=settings.start if isinstance(settings.start, dt.date) else _days(settings.start),
                lookback=_days(settings.lookback),
                days=_days(settings.slice),
                page_rows=settings.page_rows,
                floor=self.quota_floor,
                currency=settings.currency,
                keep_empty_rows=settings.keep_empty_rows,
            )
            yield from Reading(client, report, wish, through).batches()

    def test_connection(self) -> CheckResult:
        """Ask for one number of today."""
        tried = f"run_report on {self.property}"
        try:
            with self._client() as client:
                answer = _today(client)
                left = client.quota.told()
        except MuxlyError as error:
            return CheckResult("failed", tried, error.what, error.do or "correct the source's settings")
        said = answer.metadata
        return CheckResult("ok", tried, ", ".join([f"time zone {said.time_zone}", f"currency {said.currency_code}", *left[:1]]))

    def streams(self) -> list[Stream]:
        """The ready-made reports, with the types of the property's own metrics."""
        from muxly_dagster.connectors.ga4.names import Names

        with self._client() as client:
            names = Names(client.metadata())
        own = f"Your own: {len(names.dimensions)} dimensions and {len(names.metrics)} metrics to choose from"
        found = [_stream(name, report, names.types()) for name, report in READY_MADE.items()]
        return [*found, _own(own)]

    def metadata(self) -> Metadata:
        """The property's time zone, currency, quota, and the names of all dimensions and metrics."""
        from muxly_dagster.connectors.ga4.names import Names

        with self._client() as client:
            said = _today(client).metadata
            names = Names(client.metadata())
            limits = client.quota.told()
        details = {
            "time_zone": said.time_zone,
            "currency": said.currency_code,
            "dimensions": sorted(names.dimensions),
            "metrics": sorted(names.metrics),
        }
        return Metadata(account=str(self.property), api_version="v1beta", limits=limits, details=details)

    def check_pull(self, pull: PullSettings) -> Sequence[str]:
        """Unknown names, and dimensions and metrics that do not go together (checkCompatibility)."""
        from muxly_dagster.connectors.ga4.names import Names, incompatible, realtime_problems
        from muxly_dagster.connectors.ga4.reading import asked

        try:
            report = _report(_settings(pull))
            filters = {name: said for name, said in asked(report).items() if name.endswith("_filter")}
            if report.realtime:
                return [str(problem) for problem in realtime_problems(report)]
            with self._client() as client:
                names = Names(client.metadata())
                report = report.renamed(names.renamed(report))
                report.check()
                filters = {name: said for name, said in asked(report).items() if name in filters}
                return [str(problem) for problem in names.problems(report) or incompatible(client, report, filters)]
        except MuxlyError as error:
            return [f"{error.what}; {error.do}" if error.do else error.what]

    def _client(self) -> "Client":
        from muxly_dagster.connectors.ga4.client import Client

        return Client(self.auth, str(self.property), self.endpoint)

    def _through(self, cursor: Cursor | None) -> dt.date | None:
        if cursor is None:
            return None
        if cursor["property"] != self.property:
            raise ConfigurationError(
                f"the last pull was of {cursor['property']}, not of {self.property}",
                do="run `muxly run NAME --from-start` for this pull once, or give the other property a source of its own",
            )
        return dt.date.fromisoformat(cursor["through"])


def _settings(pull: PullSettings) -> Ga4Pull:
    return pull if isinstance(pull, Ga4Pull) else Ga4Pull.model_validate(pull.model_dump())


def _days(text: str) -> int:
    """Whole days of a length of time. Raises ValueError for anything else."""
    if text.strip() in ("0", "0d"):
        return 0
    length = parse_duration(text)
    if length % dt.timedelta(days=1):
        raise ValueError("must be whole days, such as 3d or 2w")
    return length.days


def _report(pull: Ga4Pull) -> Report:
    """The ready-made report with what the pull says instead, or the pull's own. Raises ConfigurationError."""
    ready = READY_MADE.get(pull.stream)
    if ready is None and not pull.metrics:
        if pull.stream == OWN:
            raise ConfigurationError("a report of your own has no metrics yet", do="name them under `metrics`")
        hint = did_you_mean(pull.stream, [*READY_MADE, OWN])
        raise ConfigurationError(f"there is no report {pull.stream!r}; {hint}", do="or name `dimensions` and `metrics` of your own")
    realtime = pull.realtime or (ready is not None and ready.realtime)
    dimensions = tuple(pull.dimensions) or (ready.dimensions if ready else ())
    if not realtime:
        dimensions = (DATE, *(name for name in dimensions if name != DATE))
    report = Report(
        dimensions,
        tuple(pull.metrics) or (ready.metrics if ready else ()),
        pull.dimension_filter or (ready.dimension_filter if ready else {}),
        pull.metric_filter or (ready.metric_filter if ready else {}),
        realtime,
        ready.description if ready else "",
    )
    report.check()
    return report


def _stream(name: str, report: Report, types: Mapping[str, pa.DataType] | None = None) -> Stream:
    """A report as a stream: its key is what a row is about. A realtime report is whole every time."""
    sync: Sync = "full" if report.realtime else "cursor"
    return Stream(name, report.dimensions, sync, report.schema(types or {}), description=report.description, deletes=True)


def _own(description: str) -> Stream:
    return Stream(OWN, (DATE,), "cursor", description=description, deletes=True)


def _today(client: "Client") -> Any:
    """The smallest report there is: it tells the time zone, the currency and the quota."""
    from google.analytics.data_v1beta.types import RunReportRequest

    today = {"start_date": "today", "end_date": "today"}
    return client.run(
        RunReportRequest(
            property=client.property, metrics=[{"name": "activeUsers"}], date_ranges=[today], limit=1, return_property_quota=True
        )
    )
