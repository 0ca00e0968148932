"""One HTTP/2 server connection without sockets: bytes in, calls made, bytes out.

`receive` handles everything a read brought and never raises; `take` gives what is to be written. Frames are parsed in place, by offsets
into the bytes of the read: no object per frame. One table, `_handlers`, says who handles which.
"""

from __future__ import annotations

import logging
from collections.abc import Callable

from picker.extproc.h2 import control_frames, frames, responses, settings
from picker.extproc.h2.call import Call, Methods
from picker.extproc.h2.errors import ConnectionFault, ErrorCode, StreamFault
from picker.extproc.h2.frames import HEADER_BYTES, MAX_STREAM_ID, unpack_header
from picker.extproc.h2.guard import Bucket
from picker.extproc.h2.intake import Intake
from picker.extproc.h2.lifetime import Lifetime
from picker.extproc.h2.limits import Limits
from picker.extproc.h2.openings import Openings
from picker.extproc.h2.outbound import Outbound
from picker.extproc.h2.status import Status
from picker.extproc.h2.stream import Stream

log = logging.getLogger(__name__)

_REMEMBER_CLOSED = 512


class Connection:
    """`wake` is called when there is something to take outside of receive and tick."""

    def __init__(self, methods: Methods, limits: Limits, now_s: float, wake: Callable[[], None] = lambda: None) -> None:
        self.closing = False
        """Nothing more to say than what `take` gives: close after it."""
        self.limits = limits
        self.methods = methods
        self.now_s = now_s
        """Of the last `receive` or `tick`."""
        self.streams: dict[int, Stream] = {}
        self.last_id = 0
        """The highest stream the client has opened."""
        self.final_id = MAX_STREAM_ID
        """Streams above it are ignored: the final GOAWAY has said so."""
        self.recent: dict[int, bool] = {}
        """Recently closed streams; True: reset or cut short by us, so that frames already under way are no error."""
        self.settled = self.acked = False
        """The client's first SETTINGS have come; it has acknowledged ours."""
        self._wake = wake
        self._busy = False
        self._opened = False
        """The preface has come."""
        self._buffer = bytearray()
        self._wanted = len(frames.PREFACE)
        """Bytes the buffer must have before it is worth looking at."""
        self._unacked_bytes = 0
        """Received and not given back to the connection's window."""

        self._control = Bucket("frames without a purpose", limits.control_burst, limits.control_per_s, now_s)
        self.resets = Bucket("streams cut short", limits.reset_burst, limits.reset_per_s, now_s)
        self.free_control = 0
        """Control frames that work has earned."""
        self.lifetime = Lifetime(self, now_s)
        self.openings = Openings(self)
        self.intake = Intake(self)
        self.out = Outbound(limits, self._sent)
        self.out.control(settings.announcement(limits))
        headers, continuation = self.openings.headers, self.openings.continuation
        self._handlers = (self._data, headers, *control_frames.bound(self), continuation)
        """By frame type, 0 to 9."""

    @property
    def open_streams(self) -> int:
        """Streams that are not closed in both directions."""
        return len(self.streams)

    # ---- in ------------------------------------------------------------------------------------------------------------------

    def receive(self, data: bytes, now_s: float) -> None:
        """Handle what came, in any portion."""
        if self.closing:
            return
        self.now_s = now_s
        self.lifetime.heard(now_s)
        if self._buffer:
            self._buffer += data
            if len(self._buffer) < self._wanted:
                return
            data = bytes(self._buffer)
            self._buffer.clear()
        self._busy = True
        try:
            used = self._frames(data, 0 if self._opened else self._preface(data))
            if used < len(data):
                self._buffer += memoryview(data)[used:]
        except ConnectionFault as fault:
            self.fail(fault.code, str(fault))
        except Exception:
            log.exception("HTTP/2 connection failed")
            self.fail(ErrorCode.INTERNAL_ERROR, "internal error")
        finally:
            self._busy = False

    def _preface(self, data: bytes) -> int:
        got = data[: len(frames.PREFACE)]
        if not frames.PREFACE.startswith(got):
            raise ConnectionFault(ErrorCode.PROTOCOL_ERROR, "this port speaks HTTP/2 (gRPC)")
        if len(got) < len(frames.PREFACE):
            return 0
        self._opened = True
        return len(got)

    def _frames(self, data: bytes, at: int) -> int:
        """Handle every whole frame from `at` on; how far that went."""
        if not self._opened:
            return at
        size = len(data)
        max_frame = self.limits.max_frame_bytes
        handlers = self._handlers
        openings = self.openings
        while size - at >= HEADER_BYTES:
            high, low, kind, flags, stream_id = unpack_header(data, at)
            length = high << 8 | low
            if length > max_frame:
                raise ConnectionFault(ErrorCode.FRAME_SIZE_ERROR, f"a frame of {length} bytes")
            start = at + HEADER_BYTES
            end = start + length
            if end > size:
                self._wanted = end - at
                return at
            at = end
            stream_id &= MAX_STREAM_ID
            if openings.block is not None and (kind != frames.CONTINUATION or stream_id != openings.block_stream):
                raise ConnectionFault(ErrorCode.PROTOCOL_ERROR, "a header block is interrupted")
            if not self.settled and kind != frames.SETTINGS:
                raise ConnectionFault(ErrorCode.PROTOCOL_ERROR, "the first frame is not SETTINGS")
            try:
                if kind < len(handlers):
                    handlers[kind](flags, stream_id, data, start, end)
                else:
                    self.spend_control()
            except StreamFault as fault:
                if stream_id > self.last_id or not stream_id & 1:
                    # There is no stream that could be reset (RFC 9113 section 6.4).
                    raise ConnectionFault(fault.code, f"{fault}, on idle stream {stream_id}") from None
                self.resets.spend(self.now_s)
                self.reset(stream_id, fault.code)
        self._wanted = HEADER_BYTES
        return at

    # ---- DATA ----------------------------------------------------------------------------------------------------------------

    def _data(self, flags: int, stream_id: int, data: bytes, start: int, end: int) -> None:
        length = end - start
        self._unacked_bytes += length
        if self._unacked_bytes * 2 >= self.limits.connection_window_bytes:
            self.out.control(frames.window_update(0, self._unacked_bytes))
            self._unacked_bytes = 0
        if flags & frames.PADDED:
            start, end = frames.unpad(data, start, end)
        stream = self.streams.get(stream_id)
        if stream is None or stream.remote_closed:
            self._data_too_late(stream_id, stream)
            return
        ended = flags & frames.END_STREAM
        if end - start < frames.SMALL_BYTES and not ended and (stream.reader is None or stream.reader.held_bytes or end - start < 5):
            self.spend_control()
        stream.unacked_bytes += length
        if stream.unacked_bytes > self.limits.stream_window_bytes:
            raise StreamFault(ErrorCode.FLOW_CONTROL_ERROR, "more DATA than the window allows")
        if stream.body_left is not None:
            stream.body_left -= end - start
            if stream.body_left < 0 or (ended and stream.body_left):
                raise StreamFault(ErrorCode.PROTOCOL_ERROR, "DATA does not match content-length")
        if ended:
            stream.remote_closed = True
        if end > start and stream.reader is not None:
            self.intake.feed(stream, data, start, end)
            if stream.closed:
                return
        if stream.held is not None:
            stream.end_pending = bool(ended)
        elif ended:
            self.intake.half_closed(stream)
        elif stream.unacked_bytes * 2 >= self.limits.stream_window_bytes:
            self.intake.give_back(stream)

    def _data_too_late(self, stream_id: int, stream: Stream | None) -> None:
        if stream is not None:
            raise StreamFault(ErrorCode.STREAM_CLOSED, "DATA after the end of the stream")
        if stream_id > self.final_id:
            return
        if not stream_id or stream_id > self.last_id or not stream_id & 1:
            raise ConnectionFault(ErrorCode.PROTOCOL_ERROR, f"DATA on idle stream {stream_id}")
        if not self.recent.get(stream_id):
            raise StreamFault(ErrorCode.STREAM_CLOSED, "DATA on a closed stream")
        self.spend_control()

    def spend_control(self) -> None:
        """A frame that brings no work must be paid for: with what work has earned, or from the bucket."""
        if self.free_control > 0:
            self.free_control -= 1
        else:
            self._control.spend(self.now_s)
            if self.out.data_frames:
                self.free_control = min(2 * self.out.data_frames, self.limits.control_burst)
                self.out.data_frames = 0

    # ---- the end of calls and streams ----------------------------------------------------------------------------------------

    def end_call(self, stream: Stream, status: Status, text: str = "") -> None:
        """End our side with a status, behind what is queued already."""
        if stream.call is not None and not stream.closed:
            self.let_go(stream, status)
            self.answer_end(stream, responses.trailers(status, text))

    def answer_end(self, stream: Stream, block: bytes) -> None:
        """End our side with this header block, behind what is queued already; what still comes is discarded."""
        stream.end_block = block
        stream.reader = None
        self.out.mark(stream)

    def let_go(self, stream: Stream, status: Status) -> None:
        """The call hears of its end, once."""
        if stream.deadline_slot is not None:
            self.lifetime.deadlines.discard(stream, stream.deadline_slot)
            stream.deadline_slot = None
        call: Call | None = stream.call
        if call is not None:
            stream.call = None
            try:
                call.end(status)
            except Exception:
                log.exception("a call failed at its end")

    def _sent(self, stream: Stream) -> None:
        """The end of our side has been written."""
        if stream.remote_closed:
            self.retire(stream)
        elif not stream.lingering:
            # The client need not go on sending (RFC 9113 section 8.1).
            self.reset(stream.id, ErrorCode.NO_ERROR)

    def reset(self, stream_id: int, code: ErrorCode) -> None:
        """RST_STREAM, whether the stream is open or not."""
        self.out.control(frames.rst_stream(stream_id, code))
        stream = self.streams.get(stream_id)
        if stream is not None:
            self.retire(stream, ours=True)
        else:
            self._remember(stream_id, True)

    def retire(self, stream: Stream, *, ours: bool = False) -> None:
        """The stream is over in both directions."""
        stream.closed = True
        stream.reader = None
        stream.queue.clear()
        stream.queued_bytes = 0
        stream.held = None
        self.intake.memory_bytes -= stream.counted_bytes
        self.streams.pop(stream.id, None)
        self.intake.paused.pop(stream.id, None)
        self._remember(stream.id, ours)
        self.let_go(stream, Status.CANCELLED)
        self.lifetime.used_s = self.now_s
        if stream.answered:
            self.resets.earn()
        if not self.streams and self.final_id != MAX_STREAM_ID:
            self.closing = True

    def _remember(self, stream_id: int, ours: bool) -> None:
        closed = self.recent
        closed[stream_id] = ours
        if len(closed) > _REMEMBER_CLOSED:
            del closed[next(iter(closed))]

    def fail(self, code: ErrorCode, text: str) -> None:
        """GOAWAY, and every call hears of it."""
        log.info("HTTP/2 connection ended: %s (%s)", text, code.name)
        self.out.control(frames.goaway(self.last_id, code, text))
        self.closing = True
        self._settle()

    def shut_down(self) -> None:
        """End everything at once."""
        if not self.closing:
            self.fail(ErrorCode.NO_ERROR, "shutting down")

    def lost(self) -> None:
        """The connection is gone: settle every call, and keep nothing."""
        self.closing = True
        self._settle()
        self.out.clear()

    def _settle(self) -> None:
        for stream in list(self.streams.values()):
            self.retire(stream, ours=True)
        self._buffer.clear()
        self.openings.block = None

    # ---- out -----------------------------------------------------------------------------------------------------------------

    def take(self) -> bytes:
        """What can be written now; ask again while `backlogged`."""
        data = self.out.take(self.now_s)
        if self.intake.paused:
            self.intake.resume()
        return data

    @property
    def backlogged(self) -> bool:
        """Another `take` would give more."""
        return self.out.backlogged

    def touched(self, stream: Stream) -> None:
        """A call has answered on its own account."""
        self.out.mark(stream)
        if not self._busy:
            self._wake()

    # ---- time ----------------------------------------------------------------------------------------------------------------

    def drain(self, now_s: float) -> None:
        """No new streams, after a notice; `closing` once the open ones have ended."""
        if not self.closing:
            self.lifetime.drain(now_s)

    def tick(self, now_s: float) -> None:
        """Deadlines, at each tick of the limits; the slower limits once a second."""
        self.now_s = now_s
        if not self.closing:
            self._busy = True
            self.lifetime.tick(now_s)
            self._busy = False

    def refill(self) -> None:
        """What may be spent on frames without a purpose, from time to time."""
        self.free_control = min(self.free_control, self.limits.control_burst)
        self._control.refill(self.now_s)
        self.resets.refill(self.now_s)
