"""The lake: one Delta table per pull or transform, each an append-only log of changes."""

from muxly_dagster.lake.lake import Lake
from muxly_dagster.lake.table import LakeTable
from muxly_dagster.lake.writer import Writer, Written

__all__ = ["Lake", "LakeTable", "Writer", "Written"]
