"""Prometheus remote write: what a Prometheus, or whoever writes as one, sends."""

from muxly_dagster.collecting.remote_write.reading import Written, read, version_of

__all__ = ["Written", "read", "version_of"]
