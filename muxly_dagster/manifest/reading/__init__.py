"""A stream from its first request to its last batch."""
