"""Which events were accepted before, so that each is stored once."""

from muxly_dagster.state.marks.index import MarkIndex
from muxly_dagster.state.marks.merging import Lock
from muxly_dagster.state.marks.recent import Marks
from muxly_dagster.state.marks.turn import take_turn

__all__ = ["Lock", "MarkIndex", "Marks", "take_turn"]
