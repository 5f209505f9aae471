"""The Pushgateway: all current values of a group in one request.

Source: the section about its API in github.com/prometheus/pushgateway.
"""

import base64
from collections.abc import Mapping
from typing import Literal
from urllib.parse import quote

from muxly_dagster.destinations.prometheus.exposing import TEXT
from muxly_dagster.destinations.prometheus.receiver import EXCERPT, Receiver
from muxly_dagster.errors import ConfigurationError
from muxly_dagster.http import Http


def group_url(url: str, group: Mapping[str, str]) -> str:
    """The address of a group: its labels, `job` first, as parts of the path."""
    parts = [part for name, value in group.items() for part in _segment(name, value)]
    return "/".join([url.rstrip("/"), "metrics", *parts])


def push(receiver: Receiver, http: Http, method: Literal["PUT", "POST"], group: Mapping[str, str], content: bytes) -> int:
    """Push the values of a group; answers with the status. Raises as `Receiver.ask`, ConfigurationError for values it does not take."""
    url = group_url(receiver.address, group)
    response = receiver.ask(http, method, url, content=content, headers={"Content-Type": TEXT})
    if response.status >= 300:
        raise ConfigurationError(
            f"the Pushgateway does not take the values: {response.reason}: {response.excerpt(EXCERPT)}",
            do="see that no other job pushes metrics of these names with another type or help",
            where=receiver.host,
        )
    return response.status


def _segment(name: str, value: str) -> tuple[str, str]:
    """A label in a path; what a path cannot hold is base64, where `=` stands for nothing at all."""
    if value and "/" not in value and value not in (".", ".."):
        return name, quote(value, safe="")
    return f"{name}@base64", base64.urlsafe_b64encode(value.encode()).decode() or "="
