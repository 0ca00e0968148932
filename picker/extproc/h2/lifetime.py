"""The connection's time: deadlines of calls, silence, idleness, stalls, and its end by draining."""

from __future__ import annotations

from typing import TYPE_CHECKING

from picker.extproc.h2 import frames
from picker.extproc.h2.deadlines import Deadlines
from picker.extproc.h2.errors import ErrorCode
from picker.extproc.h2.frames import MAX_STREAM_ID
from picker.extproc.h2.status import Status
from picker.extproc.h2.stream import Stream

if TYPE_CHECKING:
    from picker.extproc.h2.connection import Connection

DRAIN_PING = b"fairlead"
KEEPALIVE_PING = b"are you?"


class Lifetime:
    """Of one connection. All times are of the clock that the caller of the connection uses."""

    def __init__(self, connection: Connection, now_s: float) -> None:
        self._connection = connection
        self._limits = connection.limits
        self.deadlines: Deadlines[Stream] = Deadlines(connection.limits.tick_s)
        self.used_s = now_s
        """When a stream was last there."""
        self._began_s = self._looked_s = self._heard_s = now_s
        self._asked_s: float | None = None
        self._drain_s: float | None = None

    @property
    def draining(self) -> bool:
        """`drain` has been called."""
        return self._drain_s is not None

    def heard(self, now_s: float) -> None:
        """The client is alive."""
        self._heard_s = now_s
        self._asked_s = None

    def drain(self, now_s: float) -> None:
        """No new streams, after a notice; `closing` once the open ones have ended."""
        connection = self._connection
        if self._drain_s is None:
            self._drain_s = now_s
            connection.out.control(frames.goaway(MAX_STREAM_ID, ErrorCode.NO_ERROR, "shutting down"))
            connection.out.control(frames.frame(frames.PING, 0, 0, DRAIN_PING))
            if not connection.settled:
                connection.closing = True

    def say_last(self) -> None:
        """The final GOAWAY: streams that come now are ignored."""
        connection = self._connection
        if connection.final_id == MAX_STREAM_ID:
            connection.final_id = connection.last_id
            connection.out.control(frames.goaway(connection.last_id, ErrorCode.NO_ERROR, "shutting down"))
            connection.closing = connection.closing or not connection.streams

    def tick(self, now_s: float) -> None:
        """Deadlines, at each tick of the limits; the slower limits once a second."""
        for stream in self.deadlines.due(now_s):
            stream.deadline_slot = None
            self._expire(stream)
        if now_s - self._looked_s >= 1.0:
            self._looked_s = now_s
            self._look_around(now_s)
        if self._drain_s is not None and now_s - self._drain_s >= self._limits.drain_notice_s:
            self.say_last()

    def _expire(self, stream: Stream) -> None:
        connection = self._connection
        if stream.lingering:
            connection.reset(stream.id, ErrorCode.NO_ERROR)
        elif stream.queued_bytes:
            # A status could not overtake the message that is stuck.
            connection.let_go(stream, Status.DEADLINE_EXCEEDED)
            connection.reset(stream.id, ErrorCode.CANCEL)
        else:
            connection.end_call(stream, Status.DEADLINE_EXCEEDED, "deadline exceeded")

    def _look_around(self, now_s: float) -> None:
        limits, connection = self._limits, self._connection
        connection.refill()
        if not connection.acked and now_s - self._began_s >= limits.handshake_s:
            connection.fail(ErrorCode.SETTINGS_TIMEOUT, "no preface, SETTINGS or ACK in time")
            return
        for stream in [s for s in connection.streams.values() if s.stalled_s is not None and now_s - s.stalled_s >= limits.stall_s]:
            connection.reset(stream.id, ErrorCode.CANCEL)
        if not connection.streams and now_s - self.used_s >= limits.idle_s:
            connection.fail(ErrorCode.NO_ERROR, "idle")
        elif self._asked_s is not None:
            if now_s - self._asked_s >= limits.keepalive_timeout_s:
                connection.fail(ErrorCode.NO_ERROR, "no answer to a keepalive PING")
        elif now_s - self._heard_s >= limits.keepalive_s:
            self._asked_s = now_s
            connection.out.control(frames.frame(frames.PING, 0, 0, KEEPALIVE_PING))
