"""`muxly dev` and `muxly serve`: the processes of one Muxly, started, watched and stopped together."""

from muxly_dagster.serving.home import dagster_home

__all__ = ["dagster_home"]
