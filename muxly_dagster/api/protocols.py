"""The same for senders that speak OTLP, Influx line protocol, Segment's API or Prometheus remote write."""

from fastapi import APIRouter

router = APIRouter(tags=["Collect"])
