"""The straight way for ordinary posts to collect: from the connection to the inbox and back, past ASGI and the router.

Posts come by the thousand a second, and the way through a framework takes ten times as long as all that is done with one event. Only what
is certain to end with a plain 202 goes this way; everything else, and whatever fails on it, takes the ordinary way by `collect`, which
decides and answers. So nothing is answered differently here, but sooner.
"""

import time
from dataclasses import dataclass
from typing import Any

from uvicorn.config import Config
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from muxly_dagster.api.collecting import receipts
from muxly_dagster.api.collecting.accepting import LARGE, UNSTORED
from muxly_dagster.api.collecting.known import Known
from muxly_dagster.api.guard import may_post
from muxly_dagster.api.middleware import Requests
from muxly_dagster.api.middleware.watching import HEADERS, request_id
from muxly_dagster.api.senders import heads
from muxly_dagster.api.senders.collect import PATH
from muxly_dagster.api.service import Service
from muxly_dagster.collecting import plain
from muxly_dagster.collecting.sifting import refuse, sift
from muxly_dagster.state.posts import Part, Post


@dataclass(frozen=True, slots=True)
class _Asked:
    """A request whose events are being stored."""

    data: bytes
    head: heads.Head
    began: float


class Straight(HttpToolsProtocol):
    """uvicorn's own reading and answering of one connection, with the straight way beside it."""

    def __init__(self, config: Config, **named: Any) -> None:
        super().__init__(config, **named)
        shared: Any = config.app  # what `create_app` made
        self._service: Service = shared.state.service
        self._requests: Requests = shared.state.requests
        self._collecting = self._service.collecting
        self._within = False  # a request that the parser is reading
        self._asked: _Asked | None = None
        self._behind = b""  # what came before the answer to what was asked
        self._ends = False

    def data_received(self, data: bytes) -> None:
        """Take a request at once if it is ordinary and all there."""
        if self._asked is not None:
            self._behind += data
            self.flow.pause_reading()
        elif not (data.startswith(heads.PREFIX) and self._is_free() and self._taken(data)):
            super().data_received(data)

    def on_message_begin(self) -> None:
        """The parser has met a request."""
        self._within = True
        super().on_message_begin()

    def on_message_complete(self) -> None:
        """The parser has read it to its end."""
        self._within = False
        super().on_message_complete()

    def shutdown(self) -> None:
        """Answer what was asked, and close."""
        self._ends = True
        if self._asked is None:
            super().shutdown()

    def _is_free(self) -> bool:
        """Whether nothing of earlier requests is still to be read or written."""
        return not self._within and (self.cycle is None or self.cycle.response_complete) and not self.flow.write_paused

    def _taken(self, data: bytes) -> bool:
        """Whether a request has gone this way."""
        began = time.perf_counter()
        end = data.find(heads.END, 0, heads.LONGEST) + len(heads.END)
        if end < len(heads.END) or len(data) > LARGE or self.client is None:
            return False
        head = heads.read(data[:end], self.client[0])
        if head is None or head.length != len(data) - end or head.length > self._collecting.limits.body:
            return False
        try:
            post = self._post(head, data[end:])
            if post is None:
                return False
            self._collecting.writer.offer(post, self._stored, len(data))
        except Exception:  # a body that cannot be read, a full queue, a fault of ours: the ordinary way tells
            return False
        if self.timeout_keep_alive_task is not None:
            self.timeout_keep_alive_task.cancel()
            self.timeout_keep_alive_task = None
        self._asked = _Asked(data, head, began)
        return True

    def _post(self, head: heads.Head, body: bytes) -> Post | None:
        """What a request brings, if it may and all of it can be taken. Raises Unreadable."""
        known = self._collecting.believed()
        taking = known.streams.get((head.source, head.stream)) if known is not None else None
        if known is None or taking is None or not self._may(known, head):
            return None
        gathered = plain.read(body, head.kind, head.stream, taking.id, self._collecting.limits.items)
        sift(gathered, self._collecting.limits)
        if gathered.rejected or not gathered.lines or (taking.fault is not None and refuse(gathered, taking.fault)):
            return None
        return Post(head.source, (Part.of(head.source, gathered),))

    def _may(self, known: Known, head: heads.Head) -> bool:
        return may_post(self._service, known, head.key, from_here=head.from_here, source=head.source, stream=head.stream)

    def _stored(self, post: Post, error: Exception | None) -> None:
        """Answer, and go on with what came behind."""
        asked, self._asked = self._asked, None
        assert asked is not None
        try:
            if error is None:
                self._answer(asked, receipts.ordinary(post.kept[0].accepted, post.kept[0].duplicate))
            elif not self.transport.is_closing():
                self._tell(asked, error)
            behind, self._behind = self._behind, b""
            if behind and not self.transport.is_closing():
                self.data_received(behind)
        except Exception:
            self.transport.abort()  # else the sender waits for what never comes
            raise

    def _answer(self, asked: _Asked, receipt: bytes) -> None:
        self._requests.count("POST", PATH, 202, time.perf_counter() - asked.began)
        if not self.transport.is_closing():
            lines = [b"HTTP/1.1 202 Accepted\r\n"]
            lines += [b"%b: %b\r\n" % each for each in self.server_state.default_headers]
            lines.append(_SAID % (len(receipt), request_id(asked.head.request_id)))
            lines.append(b"connection: close\r\n\r\n" if self._ends else b"\r\n")
            lines.append(receipt)
            self.transport.write(b"".join(lines))
            if self._ends:
                self.transport.close()
        self.on_response_complete()

    def _tell(self, asked: _Asked, error: Exception) -> None:
        """Let the ordinary way tell that nothing was stored. It does not try by itself: where a connection breaks as a transaction is
        committed, nobody knows what was stored."""
        app: Any = self.app

        async def failed(scope: Any, receive: Any, send: Any) -> None:
            scope["state"][UNSTORED] = error
            await app(scope, receive, send)

        self.app = failed
        super().data_received(asked.data)
        self.app = app
        if self._ends:
            super().shutdown()


_SAID = b"content-length: %d\r\ncontent-type: application/json\r\nx-request-id: %b\r\n" + b"".join(b"%b: %b\r\n" % each for each in HEADERS)
