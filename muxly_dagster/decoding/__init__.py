"""Pages of JSON bytes into Arrow tables of the lake's types: fast while the shape is known, exact and forgiving when it changes.

The shape learnt so far is compiled into a msgspec decoder that refuses anything else. A page it refuses is read record by
record: new fields and types are learnt, what cannot be read is set aside with its reason, and the decoder is compiled anew.
No number is ever rounded in silence.
"""

from muxly_dagster.decoding.pages import Page, PageDecoder, Unread
from muxly_dagster.decoding.paths import Selector, parse_path
from muxly_dagster.decoding.salvage import broken as broken_record
from muxly_dagster.decoding.salvage import spoiled_record
from muxly_dagster.decoding.values import FIELD_TYPES, declared_field

__all__ = ["FIELD_TYPES", "Page", "PageDecoder", "Selector", "Unread", "broken_record", "declared_field", "parse_path", "spoiled_record"]
