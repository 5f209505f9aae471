"""The same for senders that speak OTLP, Influx line protocol, Segment's API or Prometheus remote write."""

from fastapi import APIRouter

from muxly_dagster.api.collecting.protocols import influx, otlp, prometheus, segment

router = APIRouter()
for _spoken in (otlp, influx, segment, prometheus):
    router.routes.extend(_spoken.router.routes)  # themselves, so that each keeps its way of telling errors
