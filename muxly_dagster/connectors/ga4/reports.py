"""What is asked of a property: a report's dimensions, metrics and filters, the ready-made reports, and names that Google has changed."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import pyarrow as pa

from muxly_dagster.errors import ConfigurationError

DATE = "date"
MOST_DIMENSIONS, MOST_METRICS = 9, 10
"""The API's limits of one request (runReport, `dimensions` and `metrics`)."""

RENAMED: Mapping[str, str] = {
    "conversions": "keyEvents",
    "sessionConversionRate": "sessionKeyEventRate",
    "userConversionRate": "userKeyEventRate",
    "advertiserAdCostPerConversion": "advertiserAdCostPerKeyEvent",
    "isConversionEvent": "isKeyEvent",
    "sessionDefaultChannelGrouping": "sessionDefaultChannelGroup",
    "firstUserDefaultChannelGrouping": "firstUserDefaultChannelGroup",
    "defaultChannelGrouping": "defaultChannelGroup",
}
"""Old names and those that stand for them now. What is renamed later is found in the property's metadata (`deprecatedApiNames`)."""

REALTIME_DIMENSIONS = (
    "appVersion",
    "audienceId",
    "audienceName",
    "audienceResourceName",
    "city",
    "cityId",
    "country",
    "countryId",
    "deviceCategory",
    "eventName",
    "minutesAgo",
    "platform",
    "streamId",
    "streamName",
    "unifiedScreenName",
)
REALTIME_METRICS = ("activeUsers", "eventCount", "keyEvents", "screenPageViews")
"""All that runRealtimeReport knows, besides `customUser:...` (realtime-api-schema). The property's metadata does not list them."""


@dataclass(frozen=True, slots=True)
class Report:
    """One report. `dimensions` and `metrics` are the column names; `names` maps those that the API knows by another name.

    The filters are FilterExpressions in their JSON form.
    """

    dimensions: tuple[str, ...]
    metrics: tuple[str, ...]
    dimension_filter: Mapping[str, Any] = field(default_factory=dict)
    metric_filter: Mapping[str, Any] = field(default_factory=dict)
    realtime: bool = False
    description: str = ""
    names: Mapping[str, str] = field(default_factory=dict)

    @property
    def columns(self) -> tuple[str, ...]:
        """All column names, in the order of an answer's values."""
        return (*self.dimensions, *self.metrics)

    def asked(self, columns: Sequence[str]) -> list[str]:
        """These columns by the names that the API knows."""
        return [self.names.get(column) or current_name(column) for column in columns]

    def renamed(self, names: Mapping[str, str]) -> "Report":
        """The same report, with more names that are other ones now."""
        return replace(self, names={**self.names, **names})

    def filters(self) -> dict[str, dict[str, Any]]:
        """The filters that are set, by the request's field, with the names that the API knows."""
        found = {"dimension_filter": self.dimension_filter, "metric_filter": self.metric_filter}
        return {name: self._translated(said) for name, said in found.items() if said}

    def filtered_fields(self) -> list[str]:
        """Every dimension and metric that a filter speaks of, as it was written."""
        found: list[str] = []

        def walk(node: Any) -> None:
            if isinstance(node, Mapping):
                found.extend(value for key, value in node.items() if key in _FIELD_NAME and isinstance(value, str))
                list(map(walk, node.values()))
            elif isinstance(node, list):
                list(map(walk, node))

        walk([self.dimension_filter, self.metric_filter])
        return found

    def schema(self, types: Mapping[str, pa.DataType]) -> pa.Schema | None:
        """The columns in the types of the metrics (by the API's names); None where one is missing."""
        asked = self.asked(self.metrics)
        if any(name not in types for name in asked):
            return None
        fields = [pa.field(name, pa.date32() if name == DATE and not self.realtime else pa.string()) for name in self.dimensions]
        return pa.schema(fields + [pa.field(column, types[name]) for column, name in zip(self.metrics, asked, strict=True)])

    def check(self) -> None:
        """Raises ConfigurationError for a name that stands twice (also as an old and a new name), and for too many or too few."""
        columns = self.columns
        asked = self.asked(columns)
        for at, name in enumerate(asked):
            if name in asked[:at]:
                first, again = columns[asked.index(name)], columns[at]
                same = f"{first} stands twice" if first == again else f"{first} and {again} are the same"
                raise ConfigurationError(f"{same} in this report", do=f"leave one of them out; its name is {name}")
        if not self.metrics:
            raise ConfigurationError("the report has no metrics", do="name at least one under `metrics`")
        if len(self.dimensions) > MOST_DIMENSIONS or len(self.metrics) > MOST_METRICS:
            raise ConfigurationError(
                f"the report has {len(self.dimensions)} dimensions (`date` among them) and {len(self.metrics)} metrics",
                do=f"Google allows {MOST_DIMENSIONS} and {MOST_METRICS}; make two pulls of it",
            )

    def _translated(self, node: Any) -> Any:
        if isinstance(node, Mapping):
            return {
                key: self.asked([value])[0] if key in _FIELD_NAME and isinstance(value, str) else self._translated(value)
                for key, value in node.items()
            }
        return [self._translated(item) for item in node] if isinstance(node, list) else node


_FIELD_NAME = ("fieldName", "field_name")


def current_name(name: str) -> str:
    """The name as it is today; also of a metric for one event (`conversions:purchase`)."""
    base, colon, event = name.partition(":")
    return RENAMED.get(base, base) + colon + event


def _daily(description: str, dimensions: Sequence[str], metrics: Sequence[str], metric_filter: Mapping[str, Any] | None = None) -> Report:
    return Report((DATE, *dimensions), tuple(metrics), metric_filter=metric_filter or {}, description=description)


_ABOVE_ZERO = {"operation": "GREATER_THAN", "value": {"int64Value": "0"}}

READY_MADE: Mapping[str, Report] = {
    "traffic": _daily(
        "Sessions by channel, source, medium and campaign",
        ["sessionDefaultChannelGroup", "sessionSource", "sessionMedium", "sessionCampaignName"],
        ["sessions", "engagedSessions", "activeUsers", "newUsers", "userEngagementDuration", "eventCount", "keyEvents", "totalRevenue"],
    ),
    "acquisition": _daily(
        "New users by the channel, source, medium and campaign that first brought them",
        ["firstUserDefaultChannelGroup", "firstUserSource", "firstUserMedium", "firstUserCampaignName"],
        ["newUsers", "totalUsers", "activeUsers", "engagedSessions", "userEngagementDuration", "eventCount", "keyEvents", "totalRevenue"],
    ),
    "pages": _daily(
        "Views by page",
        ["hostName", "pagePath", "pageTitle"],
        ["screenPageViews", "activeUsers", "newUsers", "userEngagementDuration", "eventCount", "keyEvents"],
    ),
    "landing_pages": _daily(
        "Sessions by the page they began with",
        ["landingPage"],
        ["sessions", "engagedSessions", "activeUsers", "newUsers", "userEngagementDuration", "keyEvents", "totalRevenue"],
    ),
    "events": _daily("Events by name", ["eventName"], ["eventCount", "totalUsers", "activeUsers", "eventValue", "totalRevenue"]),
    "key_events": _daily(
        "Key events (once called conversions) by name and channel",
        ["eventName", "sessionDefaultChannelGroup"],
        ["keyEvents", "totalUsers", "eventValue", "totalRevenue"],
        metric_filter={"filter": {"fieldName": "keyEvents", "numericFilter": _ABOVE_ZERO}},
    ),
    "items": _daily(
        "What happened to the items of a shop",
        ["itemId", "itemName", "itemBrand", "itemCategory"],
        ["itemsViewed", "itemsAddedToCart", "itemsCheckedOut", "itemsPurchased", "itemRevenue"],
    ),
    "devices": _daily(
        "Users and sessions by device, operating system and browser",
        ["deviceCategory", "operatingSystem", "browser"],
        ["activeUsers", "newUsers", "sessions", "engagedSessions", "screenPageViews", "eventCount"],
    ),
    "geography": _daily(
        "Users and sessions by country, region and city",
        ["country", "region", "city"],
        ["activeUsers", "newUsers", "sessions", "engagedSessions", "eventCount", "keyEvents", "totalRevenue"],
    ),
    "realtime": Report(
        ("country", "deviceCategory", "platform"),
        REALTIME_METRICS,
        realtime=True,
        description="The last 30 minutes; every pull replaces what the one before it found",
    ),
}
OWN = "report"
"""The stream of a pull that names its own dimensions and metrics."""
