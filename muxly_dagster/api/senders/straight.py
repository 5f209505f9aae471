"""The straight way for ordinary posts to collect: from the connection to the inbox and back, past ASGI and the router.

Posts come by the thousand a second, and the way through a framework takes ten times as long as all that is done with one event. Only what
is certain to end with a plain 202 goes this way; everything else, and whatever fails on it, takes the ordinary way by `collect`, which
decides and answers. So nothing is answered differently here, but sooner.
"""

import time
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

from uvicorn.config import Config
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from muxly_dagster.api.collecting import receipts
from muxly_dagster.api.collecting.accepting import LARGE, UNSTORED
from muxly_dagster.api.collecting.known import Taking
from muxly_dagster.api.guard import may_post
from muxly_dagster.api.middleware import Requests
from muxly_dagster.api.middleware.watching import HEADERS, request_id
from muxly_dagster.api.senders import heads
from muxly_dagster.api.senders.collect import PATH
from muxly_dagster.api.service import Service
from muxly_dagster.collecting import plain
from muxly_dagster.collecting.sifting import refuse, sift
from muxly_dagster.state.posts import Part, Post

_PATIENCE = 5.0
"""Seconds in which the rest of a request is waited for here; whoever takes longer is waited for the ordinary way."""


@dataclass(slots=True)
class _Begun:
    """A request whose body is on its way."""

    pieces: list[bytes]
    lacking: int
    began: float
    held: ExitStack


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
        self._begun: _Begun | None = None
        self._asked: _Asked | None = None
        self._behind = b""  # what came before the answer to what was asked
        self._ends = False

    def data_received(self, data: bytes) -> None:
        """Take a request if it is ordinary, once all of it is there."""
        if self._asked is not None:
            self._behind += data
            self.flow.pause_reading()
            return
        began = time.perf_counter()
        if self._begun is not None:
            self._begun.pieces.append(data)
            self._begun.lacking -= len(data)
            if self._begun.lacking > 0:
                return
            began, data = self._begun.began, self._come()
        if not (data.startswith(heads.PREFIX) and self._is_free() and self._taken(data, began)):
            super().data_received(data)

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget what has begun to come."""
        self._come()
        super().connection_lost(exc)

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
        self._leave()
        if self._asked is None:
            super().shutdown()

    def _is_free(self) -> bool:
        """Whether nothing of earlier requests is still to be read or written."""
        return not self._within and (self.cycle is None or self.cycle.response_complete) and not self.flow.write_paused

    def _taken(self, data: bytes, began: float) -> bool:
        """Whether a request goes this way, or will do so when the rest of it has come."""
        end = data.find(heads.END, 0, heads.LONGEST) + len(heads.END)
        if end < len(heads.END) or len(data) > LARGE or self.client is None:
            return False
        head = heads.read(data[:end], self.client[0])
        if head is None or head.length > self._collecting.limits.body:
            return False
        lacking = end + head.length - len(data)
        try:
            if lacking > 0:
                return self._awaited(head, data, lacking, began)
            post = self._post(head, data[end:]) if not lacking else None
            if post is None:
                return False
            self._collecting.writer.offer(post, self._stored, len(data))
        except Exception:  # a body that cannot be read, a full queue, a fault of ours: the ordinary way tells
            return False
        self._unset_keepalive_if_required()
        self._asked = _Asked(data, head, began)
        return True

    def _awaited(self, head: heads.Head, data: bytes, lacking: int, began: float) -> bool:
        """Whether the rest of a request is waited for here: many clients send the head by itself, and a network brings bodies in pieces."""
        if self._ends or len(data) + lacking > LARGE or self._taking(head) is None:
            return False
        with ExitStack() as stack:
            stack.enter_context(self._collecting.hold()).add(len(data) + lacking)
            timer = self.loop.call_later(_PATIENCE, self._leave)
            stack.callback(timer.cancel)
            self._begun = _Begun([data], lacking, began, stack.pop_all())
        self._unset_keepalive_if_required()
        return True

    def _come(self) -> bytes:
        """What has come of a request that has begun, which is no longer waited for."""
        begun, self._begun = self._begun, None
        if begun is None:
            return b""
        begun.held.close()
        return b"".join(begun.pieces)

    def _leave(self) -> None:
        """Leave a request that has begun to the ordinary way."""
        if self._begun is not None:
            super().data_received(self._come())

    def _post(self, head: heads.Head, body: bytes) -> Post | None:
        """What a request brings, if it may and all of it can be taken. Raises Unreadable."""
        taking = self._taking(head)
        if taking is None:
            return None
        gathered = plain.read(body, head.kind, head.stream, taking.id, self._collecting.limits.items)
        sift(gathered, self._collecting.limits)
        if gathered.rejected or not gathered.lines or (taking.fault is not None and refuse(gathered, taking.fault)):
            return None
        return Post(head.source, (Part.of(head.source, gathered),))

    def _taking(self, head: heads.Head) -> Taking | None:
        """How events of a stream are taken from who may post them; None where the ordinary way has to look closer."""
        known = self._collecting.believed()
        taking = known.streams.get((head.source, head.stream)) if known is not None else None
        if known is None or taking is None:
            return None
        may = may_post(self._service, known, head.key, from_here=head.from_here, source=head.source, stream=head.stream)
        return taking if may else None

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
