"""Header blocks put together, and the streams they open."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from picker.extproc.h2 import frames, responses
from picker.extproc.h2.errors import ConnectionFault, ErrorCode, StreamFault
from picker.extproc.h2.frames import MAX_STREAM_ID, unpack_word
from picker.extproc.h2.headers import BlockDecoder, RequestHead
from picker.extproc.h2.requests import HttpRefusal, Opening, opening
from picker.extproc.h2.status import Status
from picker.extproc.h2.stream import Stream

if TYPE_CHECKING:
    from picker.extproc.h2.connection import Connection

log = logging.getLogger(__name__)


class Openings:
    """Of one connection."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._limits = limits = connection.limits
        self.decoder = BlockDecoder(limits.header_table_bytes, limits.header_block_bytes)
        self.block: bytearray | None = None
        """A header block that is not complete; nothing but its CONTINUATION may come."""
        self.block_stream = 0
        self._block_flags = self._block_frames = self._block_depends = 0
        self._head: RequestHead | None = None
        self._opening: Opening | HttpRefusal | None = None
        """Of `_head`: most requests of a connection have the very same head."""

    def headers(self, flags: int, stream_id: int, data: bytes, start: int, end: int) -> None:
        """A HEADERS frame. Raises ConnectionFault and StreamFault, as all of these."""
        if not stream_id & 1:
            raise ConnectionFault(ErrorCode.PROTOCOL_ERROR, f"HEADERS on stream {stream_id}")
        if flags & frames.PADDED:
            start, end = frames.unpad(data, start, end)
        depends = 0
        if flags & frames.HAS_PRIORITY:
            if end - start < 5:
                raise ConnectionFault(ErrorCode.FRAME_SIZE_ERROR, "HEADERS too short for its priority")
            depends = unpack_word(data, start)[0] & MAX_STREAM_ID
            start += 5
        if flags & frames.END_HEADERS:
            self._header_block(flags, stream_id, depends, data[start:end])
            return
        self.block = bytearray(memoryview(data)[start:end])
        self.block_stream, self._block_flags, self._block_depends, self._block_frames = stream_id, flags, depends, 1

    def continuation(self, flags: int, stream_id: int, data: bytes, start: int, end: int) -> None:
        """More of the block that HEADERS began."""
        block = self.block
        if block is None:
            raise ConnectionFault(ErrorCode.PROTOCOL_ERROR, "CONTINUATION without a header block")
        self._block_frames += 1
        if self._block_frames > self._limits.header_block_frames or len(block) + end - start > self._limits.header_block_bytes:
            raise ConnectionFault(ErrorCode.ENHANCE_YOUR_CALM, "a header block without end")
        block += memoryview(data)[start:end]
        if flags & frames.END_HEADERS:
            self.block = None
            self._header_block(self._block_flags, stream_id, self._block_depends, bytes(block))

    def _header_block(self, flags: int, stream_id: int, depends: int, block: bytes) -> None:
        connection = self._connection
        stream = connection.streams.get(stream_id)
        if stream is not None:
            self._trailers(stream, flags, block)
            return
        if stream_id <= connection.last_id:
            # Decoded even so: the HPACK state is the connection's.
            self.decoder.fields(block)
            ours = connection.recent.get(stream_id)
            if ours:
                connection.spend_control()
                return
            code = ErrorCode.PROTOCOL_ERROR if ours is None else ErrorCode.STREAM_CLOSED
            raise ConnectionFault(code, f"HEADERS on stream {stream_id}, which is in the past")
        head = self.decoder.request(block)
        if stream_id > connection.final_id:
            return
        connection.last_id = stream_id
        if depends == stream_id:
            raise StreamFault(ErrorCode.PROTOCOL_ERROR, "a stream depends on itself")
        if head.malformed is not None:
            raise StreamFault(ErrorCode.PROTOCOL_ERROR, head.malformed)
        if len(connection.streams) >= self._limits.max_streams:
            raise StreamFault(ErrorCode.REFUSED_STREAM, "too many streams")
        ended = bool(flags & frames.END_STREAM)
        if ended and head.content_length:
            raise StreamFault(ErrorCode.PROTOCOL_ERROR, "content-length without content")
        stream = connection.streams[stream_id] = Stream(connection, stream_id, connection.out.initial_window)
        stream.remote_closed = ended
        stream.body_left = head.content_length
        if head is not self._head:
            self._head = head
            self._opening = opening(head, connection.methods, self._limits)
        assert self._opening is not None
        self._open(stream, self._opening)

    def _open(self, stream: Stream, found: Opening | HttpRefusal) -> None:
        connection = self._connection
        if isinstance(found, HttpRefusal):
            connection.out.head(stream, found.block, end=False)
            stream.queue.append(found.body)
            stream.queued_bytes = len(found.body)
            stream.end_block = b""
            stream.lingering = True
            stream.deadline_slot = connection.lifetime.deadlines.add(stream, connection.now_s + self._limits.linger_s)
            connection.out.mark(stream)
            return
        if found.method is None:
            connection.answer_end(stream, responses.trailers(found.status, found.text, accept_encoding=found.accept_encoding))
            return
        try:
            stream.call = found.method(stream)
        except Exception:
            log.exception("a call cannot begin")
            connection.answer_end(stream, responses.trailers(Status.INTERNAL, "internal error"))
            return
        stream.reader = found.reader()
        if found.timeout_s is not None:
            if found.timeout_s <= 0:
                connection.end_call(stream, Status.DEADLINE_EXCEEDED, "deadline exceeded")
                return
            stream.deadline_slot = connection.lifetime.deadlines.add(stream, connection.now_s + found.timeout_s)
        if stream.remote_closed:
            connection.intake.half_closed(stream)

    def _trailers(self, stream: Stream, flags: int, block: bytes) -> None:
        wrong = self.decoder.trailers(block)
        if stream.remote_closed:
            raise StreamFault(ErrorCode.STREAM_CLOSED, "HEADERS after the end of the stream")
        if wrong is None and not flags & frames.END_STREAM:
            wrong = "trailers that do not end the stream"
        if wrong is None and stream.body_left:
            wrong = "DATA does not match content-length"
        if wrong is not None:
            raise StreamFault(ErrorCode.PROTOCOL_ERROR, wrong)
        stream.remote_closed = True
        if stream.held is None:
            self._connection.intake.half_closed(stream)
        else:
            stream.end_pending = True
