"""What people who write destinations test with: changes made by hand, a destination in memory, and the contract every one must keep.

class TestMine(DestinationContract):
    @pytest.fixture
    def destination(self, tmp_path):
        return Mine(path=str(tmp_path))

    def stored(self, destination):
        return [...]  # what is there now, one dict of data columns per record
"""

from muxly_dagster.testing.destinations.changes import EVERY_TYPE, changes, delivery
from muxly_dagster.testing.destinations.contract import DestinationContract
from muxly_dagster.testing.destinations.memory import Memory, MemoryDestination

__all__ = ["EVERY_TYPE", "DestinationContract", "Memory", "MemoryDestination", "changes", "delivery"]
