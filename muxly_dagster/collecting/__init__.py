"""What services send, in whatever form they send it, read into events: one JSON object each, for one stream."""

from muxly_dagster.collecting.events import Gathered, Lines, Rejected, TooLarge, UnknownType, Unreadable

__all__ = ["Gathered", "Lines", "Rejected", "TooLarge", "UnknownType", "Unreadable"]
