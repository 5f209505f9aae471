"""Sheets: what connectors and destinations declare, as plain values for commands and documentation pages."""

from muxly_dagster.sheet.connector import Sheet, StreamSheet, sheet, sheet_of, stream_sheet, summary
from muxly_dagster.sheet.destination import DestinationSheet, destination_sheet, destination_sheet_of, shared_fields
from muxly_dagster.sheet.fields import FieldSheet, default_text

__all__ = [
    "DestinationSheet",
    "FieldSheet",
    "Sheet",
    "StreamSheet",
    "default_text",
    "destination_sheet",
    "destination_sheet_of",
    "shared_fields",
    "sheet",
    "sheet_of",
    "stream_sheet",
    "summary",
]
