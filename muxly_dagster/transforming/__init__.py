"""Transforms at work: read current tables of the lake, write what changed to the transform's own table."""

from muxly_dagster.transforming.run import preview, transform

__all__ = ["preview", "transform"]
