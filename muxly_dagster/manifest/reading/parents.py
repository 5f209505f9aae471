"""The records of a stream that others are read for: all of them, as their provider writes them."""

import datetime as dt
from collections.abc import Iterator
from typing import Any

from muxly_dagster.connector import Unreadable
from muxly_dagster.manifest.reading.place import PlaceReader
from muxly_dagster.manifest.reading.places import places
from muxly_dagster.manifest.reading.syncing import Slice, slices
from muxly_dagster.manifest.reading.taking import Source
from muxly_dagster.manifest.schema import CursorSync


class Parents:
    """Reads parent streams. `unread` takes what could not be read of them: the records below it cannot be told from those that are gone."""

    def __init__(self, source: Source) -> None:
        self._source = source
        self.unread: list[Unreadable] = []

    def read(self, name: str) -> Iterator[dict[str, Any]]:
        """Every record there is, whatever the stream's own cursor says. Raises what the client raises."""
        spec = self._source.manifest.streams[name]
        stretches = [Slice(None, None)]
        if isinstance(spec.sync, CursorSync):
            stretches = list(slices(spec.sync, None, self._source.context, dt.datetime.now(dt.UTC)))
        for place in places(spec.for_each, self._source.context, self.read):
            reader = PlaceReader(self._source, spec, place, None)
            for stretch in stretches:
                yield from reader.objects(stretch.context(), self.unread)
