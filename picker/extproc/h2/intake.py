"""What streams receive: bytes into messages, messages into calls, answers into queues; and when that has to wait.

A stream whose answers are not taken is not heard any further: its messages wait, its window is not given back, and that bounds them.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Sequence
from typing import TYPE_CHECKING

from picker.extproc.h2 import frames
from picker.extproc.h2.errors import ErrorCode
from picker.extproc.h2.status import Status, StatusError
from picker.extproc.h2.stream import Stream

if TYPE_CHECKING:
    from picker.extproc.h2.connection import Connection

log = logging.getLogger(__name__)

_OBJECT_BYTES = 56
"""What a Python bytes object and its place in a queue take beside the content: a megabyte of tiny messages takes eight."""


class Intake:
    """Of one connection."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._limits = connection.limits
        self.paused: dict[int, Stream] = {}
        """Streams that are not heard."""
        self.memory_bytes = 0
        """Kept for all streams; never too small, and made exact when it seems too large."""

    def feed(self, stream: Stream, data: bytes, start: int, end: int) -> None:
        """Hand over the messages that this input completes, or keep them while too much output waits."""
        connection = self._connection
        assert stream.reader is not None
        try:
            messages = stream.reader.feed(data, start, end)
        except StatusError as error:
            connection.end_call(stream, error.status, error.text)
            return
        if stream.held is not None:
            stream.held += messages
            stream.held_bytes += sum(map(len, messages)) + _OBJECT_BYTES * len(messages)
            self._check_memory(stream)
        elif messages:
            connection.free_control += 2 * len(messages)
            self._answer(stream, messages)
            if stream.queued_bytes > frames.DEFAULT_FRAME_BYTES:
                self._check_memory(stream)
        else:
            self._check_memory(stream)

    def _answer(self, stream: Stream, messages: Sequence[bytes]) -> None:
        """Queue what is answered; stop when that is too much, and keep the rest of the messages until it has gone."""
        connection = self._connection
        limits = self._limits
        done = 0
        try:
            for message in messages:
                call = stream.call
                if call is None:
                    return
                for reply in call.message(message):
                    if 0 < limits.max_reply_bytes < len(reply):
                        text = f"a reply of {len(reply)} bytes is larger than the limit of {limits.max_reply_bytes}"
                        raise StatusError(Status.RESOURCE_EXHAUSTED, text)
                    stream.enqueue(reply)
                done += 1
                if call.finished:
                    connection.end_call(stream, Status.OK)
                if stream.queued_bytes > limits.stream_outbound_bytes:
                    break
        except StatusError as error:
            connection.end_call(stream, error.status, error.text)
        except Exception:
            log.exception("a call failed")
            connection.end_call(stream, Status.INTERNAL, "internal error")
        if stream.queued_bytes:
            connection.out.mark(stream)
            if stream.queued_bytes > limits.stream_outbound_bytes and stream.held is None:
                stream.held = deque(messages[done:])
                stream.held_bytes = sum(map(len, stream.held)) + _OBJECT_BYTES * len(stream.held)
                self.paused[stream.id] = stream

    def half_closed(self, stream: Stream) -> None:
        """The client will send no more."""
        connection = self._connection
        call = stream.call
        if call is not None:
            try:
                if stream.reader is not None and stream.reader.held_bytes:
                    raise StatusError(Status.INTERNAL, "the stream ends inside a message")
                if call.half_closed():
                    connection.end_call(stream, Status.OK)
            except StatusError as error:
                connection.end_call(stream, error.status, error.text)
            except Exception:
                log.exception("a call failed")
                connection.end_call(stream, Status.INTERNAL, "internal error")
        elif stream.lingering and stream.end_block is None:
            connection.retire(stream)

    def give_back(self, stream: Stream) -> None:
        """To the client's window, what the stream has received."""
        self._connection.out.control(frames.window_update(stream.id, stream.unacked_bytes))
        stream.unacked_bytes = 0

    def _check_memory(self, stream: Stream) -> None:
        """The call that makes the connection too large goes.

        The sum is brought up to date by what grew, and made anew when it is too large: what was sent meanwhile is subtracted only then.
        """
        connection = self._connection
        grown = stream.memory_bytes
        self.memory_bytes += grown - stream.counted_bytes
        stream.counted_bytes = grown
        if self.memory_bytes <= self._limits.connection_bytes:
            return
        self.memory_bytes = 0
        for other in connection.streams.values():
            other.counted_bytes = other.memory_bytes
            self.memory_bytes += other.counted_bytes
        if self.memory_bytes > self._limits.connection_bytes:
            connection.resets.spend(connection.now_s)
            connection.let_go(stream, Status.RESOURCE_EXHAUSTED)
            connection.reset(stream.id, ErrorCode.ENHANCE_YOUR_CALM)

    def resume(self) -> None:
        """Go on with streams whose output has been taken."""
        low = self._limits.stream_outbound_bytes // 2
        for stream in [s for s in self.paused.values() if s.queued_bytes <= low]:
            del self.paused[stream.id]
            held, stream.held = stream.held, None
            if held and stream.call is not None:
                self._answer(stream, list(held))
            if stream.held is not None:
                continue
            if stream.end_pending:
                stream.end_pending = False
                self.half_closed(stream)
            elif stream.unacked_bytes and not stream.remote_closed:
                self.give_back(stream)
