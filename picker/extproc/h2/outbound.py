"""The sending half of a connection: frames in order, within the peer's windows, taken out as one piece of bytes.

What streams want to say is queued on them and turned into frames once all input of a read has been handled: the replies of one read leave
in one DATA frame per stream. A stream that does not fit the connection's window takes its turn frame by frame with the others.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

from picker.extproc.h2 import frames, responses
from picker.extproc.h2.errors import ConnectionFault, ErrorCode
from picker.extproc.h2.limits import Limits
from picker.extproc.h2.settings import DEFAULT_WINDOW
from picker.extproc.h2.stream import Stream


class Outbound:
    """`sent` is called for a stream whose end has been written."""

    def __init__(self, limits: Limits, sent: Callable[[Stream], None]) -> None:
        self.window = DEFAULT_WINDOW
        self.initial_window = DEFAULT_WINDOW
        self.max_frame = frames.DEFAULT_FRAME_BYTES
        self.data_frames = 0
        """Sent and not yet counted, those that tiny windows have cut left out."""
        self._limits = limits
        self._sent = sent
        self._out: list[bytes | memoryview] = []
        self._room = limits.write_bytes
        self._dirty: list[Stream] = []
        self._waiting: deque[Stream] = deque()
        self._table_size_said = False

    def control(self, frame: bytes) -> None:
        """A frame that no window holds back, in front of whatever streams are going to say."""
        self._out.append(frame)

    def mark(self, stream: Stream) -> None:
        """`stream` has something to say."""
        if not stream.dirty:
            stream.dirty = True
            self._dirty.append(stream)

    @property
    def backlogged(self) -> bool:
        """There is more that could be sent now."""
        return bool(self._out or self._dirty or (self._waiting and self.window > 0))

    def take(self, now_s: float) -> bytes:
        """Everything that can be sent now, up to the limit for one write."""
        self._room = self._limits.write_bytes
        if self._waiting:
            self._take_turns(now_s)
        if self._dirty:
            # Writing a stream may end it, and never makes another one dirty.
            dirty, self._dirty = self._dirty, []
            for stream in dirty:
                stream.dirty = False
                if not stream.closed:
                    self._write(stream, now_s)
            if self._waiting:
                self._take_turns(now_s)
        out, self._out = self._out, []
        return b"".join(out)

    def head(self, stream: Stream, block: bytes, *, end: bool) -> None:
        """A HEADERS frame."""
        if not self._table_size_said:
            self._table_size_said = True
            block = responses.TABLE_SIZE_0 + block
        flags = frames.END_HEADERS | frames.END_STREAM if end else frames.END_HEADERS
        self._out.append(frames.frame_header(len(block), frames.HEADERS, flags, stream.id) + block)
        stream.head_sent = True

    def _write(self, stream: Stream, now_s: float) -> None:
        size = stream.queued_bytes
        if size:
            if stream.waiting:
                return
            if not stream.head_sent:
                self.head(stream, responses.HEAD, end=False)
            if size <= self.max_frame and size <= stream.send_window and size <= self.window and size <= self._room:
                self._out.append(frames.frame_header(size, frames.DATA, 0, stream.id))
                self._out += stream.queue
                stream.queue.clear()
                stream.queued_bytes = 0
                stream.send_window -= size
                self.window -= size
                self._room -= size
                self.data_frames += 1
                stream.stalled_s = None
            else:
                if stream.stalled_s is None:
                    stream.stalled_s = now_s
                if stream.send_window > 0:
                    self._wait(stream)
                return
        self._finish(stream)

    def _finish(self, stream: Stream) -> None:
        block = stream.end_block
        if block is None:
            return
        stream.end_block = None
        if block:
            self.head(stream, block if stream.head_sent else responses.HEAD + block, end=True)
        else:
            self._out.append(frames.frame_header(0, frames.DATA, frames.END_STREAM, stream.id))
        self._sent(stream)

    def _wait(self, stream: Stream) -> None:
        if not stream.waiting:
            stream.waiting = True
            self._waiting.append(stream)

    def _take_turns(self, now_s: float) -> None:
        waiting = self._waiting
        while waiting and self.window > 0 and self._room > 0:
            stream = waiting.popleft()
            stream.waiting = False
            size = min(stream.queued_bytes, stream.send_window, self.window, self.max_frame)
            if stream.closed or size <= 0:
                continue
            self._out.append(frames.frame_header(size, frames.DATA, 0, stream.id))
            self._out += stream.take(size)
            stream.send_window -= size
            self.window -= size
            self._room -= size
            if size >= frames.SMALL_BYTES or not stream.queued_bytes:
                self.data_frames += 1
                stream.stalled_s = now_s
            if not stream.queued_bytes:
                stream.stalled_s = None
                self._finish(stream)
            elif stream.send_window > 0:
                self._wait(stream)

    # ---- the peer's windows --------------------------------------------------------------------------------------------------

    def widen(self, increment: int) -> None:
        """The connection's window. Raises ConnectionFault beyond 2^31-1."""
        self.window += increment
        if self.window > frames.MAX_WINDOW:
            raise ConnectionFault(ErrorCode.FLOW_CONTROL_ERROR, "connection window above 2^31-1")

    def clear(self) -> None:
        """Nothing will be sent any more."""
        self._out.clear()
        self._dirty.clear()
        self._waiting.clear()
