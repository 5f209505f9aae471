"""What a request comes to while it is read: small ones can become large, where many events share what is sent once."""

from muxly_dagster.collecting.events import TooLarge
from muxly_dagster.collecting.limits import Limits

_TIMES = 8  # as much larger than a body may be its events may be together: protobuf's numbers and texts that are sent once cost that

ORDINARY = Limits()
"""What holds where nothing else is said."""


class Tally:
    """Counts items and bytes. Raises TooLarge from where a request holds too much, before more of it is made."""

    def __init__(self, limits: Limits) -> None:
        self._items, self._bytes = limits.items, limits.body * _TIMES
        self._most = limits

    def add(self, line: bytes = b"") -> None:
        """One more item; `line` where it is an event."""
        self._items -= 1
        self._bytes -= len(line)
        if self._items < 0:
            raise TooLarge(f"the body holds more than {self._most.items:,} events")
        if self._bytes < 0:
            raise TooLarge(f"the events of the body have more than {self._most.body * _TIMES:,} bytes together")
