"""What people who write connectors and destinations test with: stand-ins, and the suites of promises that every one of them keeps."""

from muxly_dagster.testing.connectors import ConnectorContract, Provider, Pulled
from muxly_dagster.testing.destinations import EVERY_TYPE, DestinationContract, Memory, MemoryDestination, changes, delivery

__all__ = [
    "EVERY_TYPE",
    "ConnectorContract",
    "DestinationContract",
    "Memory",
    "MemoryDestination",
    "Provider",
    "Pulled",
    "changes",
    "delivery",
]
