"""Collecting: events that services post, by whatever protocol, on their way into the inbox."""
