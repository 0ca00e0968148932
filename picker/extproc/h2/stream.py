"""One HTTP/2 stream: where each direction stands, and what waits in it."""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING

from picker.extproc.h2.call import Call
from picker.extproc.h2.grpc_messages import MessageReader, prefix
from picker.extproc.h2.status import Status

if TYPE_CHECKING:
    from picker.extproc.h2.connection import Connection


class Stream:
    """State only; the connection acts on it. Also the Responder that the stream's call is given."""

    __slots__ = (
        "answered", "body_left", "call", "closed", "connection", "counted_bytes", "deadline_slot", "dirty", "end_block", "end_pending",
        "head_sent", "held", "held_bytes", "id", "lingering", "queue", "queued_bytes", "reader", "remote_closed", "send_window",
        "stalled_s", "unacked_bytes", "waiting",
    )  # fmt: skip

    def __init__(self, connection: Connection, stream_id: int, send_window: int) -> None:
        self.connection = connection
        self.id = stream_id
        self.closed = False
        """Gone from the connection; nothing is sent any more."""
        self.call: Call | None = None
        """None: not begun, or ended."""
        self.deadline_slot: int | None = None

        self.reader: MessageReader | None = None
        """None: what comes is discarded."""
        self.remote_closed = False
        self.end_pending = False
        """The client's end of stream waits behind `held`."""
        self.body_left: int | None = None
        """Of content-length; None: not declared."""
        self.unacked_bytes = 0
        """Received and not given back to the client's window."""
        self.held: deque[bytes] | None = None
        """Messages not handled while too much output waits; None: they are handled as they come."""
        self.held_bytes = 0

        self.counted_bytes = 0
        """Its part in the connection's memory, when last looked at."""

        self.answered = False
        """A call has said something: neither a refusal nor a bare status."""
        self.head_sent = False
        self.queue: deque[bytes | memoryview] = deque()
        self.queued_bytes = 0
        self.send_window = send_window
        """May be negative: the client can shrink it below what is under way."""
        self.end_block: bytes | None = None
        """The header block that ends our side, once it is known; empty: an empty DATA frame does."""
        self.dirty = False
        """In the list of streams to be written next."""
        self.waiting = False
        """In the queue for the connection's window."""
        self.stalled_s: float | None = None
        """Since when nothing of `queue` could be sent."""
        self.lingering = False
        """Answered over HTTP; the rest of the request's body is taken in silence."""

    # ---- Responder -----------------------------------------------------------------------------------------------------------

    def send(self, message: bytes) -> None:
        """Queue one message."""
        if self.call is not None:
            self.enqueue(message)
            self.connection.touched(self)

    def finish(self, status: Status, text: str = "") -> None:
        """End the call."""
        if self.call is not None:
            self.connection.end_call(self, status, text)
            self.connection.touched(self)

    # ---- output --------------------------------------------------------------------------------------------------------------

    def enqueue(self, message: bytes) -> None:
        """With its length prefix."""
        length = len(message)
        self.answered = True
        self.queue.append(prefix(length))
        self.queue.append(message)
        self.queued_bytes += length + 5

    def take(self, count: int) -> list[bytes | memoryview]:
        """The next `count` bytes of the queue, in parts."""
        self.queued_bytes -= count
        parts: list[bytes | memoryview] = []
        queue = self.queue
        while count:
            part = queue.popleft()
            if len(part) > count:
                view = memoryview(part)
                queue.appendleft(view[count:])
                part = view[:count]
            parts.append(part)
            count -= len(part)
        return parts

    @property
    def memory_bytes(self) -> int:
        """What is kept for this stream."""
        return self.queued_bytes + (0 if self.reader is None else self.reader.held_bytes) + (0 if self.held is None else self.held_bytes)
