"""What services post to, by whatever protocol: plain JSON and CloudEvents, OTLP, Influx line protocol, Segment's API, remote write."""

from fastapi import APIRouter

from muxly_dagster.api.senders import collect, influx, otlp, prometheus, segment

router = APIRouter()
for _spoken in (collect, otlp, influx, segment, prometheus):
    router.routes.extend(_spoken.router.routes)  # themselves, so that each keeps its way of telling errors
