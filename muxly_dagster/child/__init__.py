"""A connector's work in a process of its own: started with little more than a request, heard line by line, and ended with the pull.

What runs there needs no Muxly: `frame.py` takes a script of the connector's by its path. Its messages are those of the Airbyte protocol
(RECORD, STATE, CATALOG, CONNECTION_STATUS, LOG, TRACE), one JSON object a line, and an END that says that nothing is missing.
"""

from muxly_dagster.child.batches import batches, hinted
from muxly_dagster.child.process import Message, Work, ask, has_module, messages, shown

__all__ = ["Message", "Work", "ask", "batches", "has_module", "hinted", "messages", "shown"]
