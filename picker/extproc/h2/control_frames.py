"""The frames that carry no messages: what each must look like, and what it does. The fault rules are RFC 9113 section 6.

All have the same parameters, for the connection's table: the payload is `data[start:end]`. All raise ConnectionFault or StreamFault.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING

from picker.extproc.h2 import frames
from picker.extproc.h2 import settings as peer_settings
from picker.extproc.h2.errors import ConnectionFault, ErrorCode, StreamFault
from picker.extproc.h2.frames import MAX_STREAM_ID, unpack_word
from picker.extproc.h2.lifetime import DRAIN_PING

if TYPE_CHECKING:
    from picker.extproc.h2.connection import Connection


def priority(connection: Connection, flags: int, stream_id: int, data: bytes, start: int, end: int) -> None:
    """Checked and ignored: what one read brings is answered in one write anyway."""
    if not stream_id:
        raise ConnectionFault(ErrorCode.PROTOCOL_ERROR, "PRIORITY on stream 0")
    if end - start != 5:
        raise StreamFault(ErrorCode.FRAME_SIZE_ERROR, "PRIORITY of a length other than 5")
    if unpack_word(data, start)[0] & MAX_STREAM_ID == stream_id:
        raise StreamFault(ErrorCode.PROTOCOL_ERROR, "a stream depends on itself")
    connection.spend_control()


def rst_stream(connection: Connection, flags: int, stream_id: int, data: bytes, start: int, end: int) -> None:
    """The client has no more interest in a stream."""
    if end - start != 4:
        raise ConnectionFault(ErrorCode.FRAME_SIZE_ERROR, "RST_STREAM of a length other than 4")
    stream = connection.streams.get(stream_id)
    if stream is None:
        _must_have_been(connection, stream_id, "RST_STREAM")
        connection.spend_control()
        return
    # A proxy resets each stream it is done with; only those that came to nothing are suspicious.
    if not stream.answered:
        connection.resets.spend(connection.now_s)
    connection.retire(stream)


def settings(connection: Connection, flags: int, stream_id: int, data: bytes, start: int, end: int) -> None:
    """Ours acknowledged, or the client's, in force and acknowledged at once."""
    if stream_id:
        raise ConnectionFault(ErrorCode.PROTOCOL_ERROR, "SETTINGS on a stream")
    if flags & frames.ACK:
        if end != start:
            raise ConnectionFault(ErrorCode.FRAME_SIZE_ERROR, "a SETTINGS ACK with content")
        if not connection.settled:
            raise ConnectionFault(ErrorCode.PROTOCOL_ERROR, "the first frame is not SETTINGS")
        connection.acked = True
        return
    connection.spend_control()
    window = connection.out.initial_window
    for key, value in peer_settings.entries(data[start:end]):
        if key == peer_settings.INITIAL_WINDOW_SIZE:
            window = value
        elif key == peer_settings.MAX_FRAME_SIZE:
            connection.out.max_frame = min(value, connection.limits.max_frame_bytes)
    if window != connection.out.initial_window:
        _resize_windows(connection, window)
    connection.settled = True
    connection.out.control(peer_settings.ACK_FRAME)


def _resize_windows(connection: Connection, size: int) -> None:
    # The work grows with the streams, and so does the price.
    for _ in range(len(connection.streams) // 100):
        connection.spend_control()
    change = size - connection.out.initial_window
    connection.out.initial_window = size
    for stream in connection.streams.values():
        stream.send_window += change
        if stream.send_window > frames.MAX_WINDOW:
            raise ConnectionFault(ErrorCode.FLOW_CONTROL_ERROR, "INITIAL_WINDOW_SIZE takes a stream's window above 2^31-1")
        if stream.queued_bytes and stream.send_window > 0:
            connection.out.mark(stream)


def ping(connection: Connection, flags: int, stream_id: int, data: bytes, start: int, end: int) -> None:
    """Answered in the write that follows this read."""
    if stream_id:
        raise ConnectionFault(ErrorCode.PROTOCOL_ERROR, "PING on a stream")
    if end - start != 8:
        raise ConnectionFault(ErrorCode.FRAME_SIZE_ERROR, "PING of a length other than 8")
    connection.spend_control()
    payload = data[start:end]
    if not flags & frames.ACK:
        connection.out.control(frames.frame(frames.PING, frames.ACK, 0, payload))
    elif payload == DRAIN_PING and connection.lifetime.draining:
        connection.lifetime.say_last()


def goaway(connection: Connection, flags: int, stream_id: int, data: bytes, start: int, end: int) -> None:
    """The client opens no more streams; those it has go on."""
    if stream_id:
        raise ConnectionFault(ErrorCode.PROTOCOL_ERROR, "GOAWAY on a stream")
    if end - start < 8:
        raise ConnectionFault(ErrorCode.FRAME_SIZE_ERROR, "GOAWAY shorter than 8")
    connection.spend_control()


def window_update(connection: Connection, flags: int, stream_id: int, data: bytes, start: int, end: int) -> None:
    """The client takes more."""
    if end - start != 4:
        raise ConnectionFault(ErrorCode.FRAME_SIZE_ERROR, "WINDOW_UPDATE of a length other than 4")
    connection.spend_control()
    increment = unpack_word(data, start)[0] & MAX_STREAM_ID
    if not stream_id:
        if not increment:
            raise ConnectionFault(ErrorCode.PROTOCOL_ERROR, "WINDOW_UPDATE of 0")
        connection.out.widen(increment)
        return
    stream = connection.streams.get(stream_id)
    if stream is None:
        _must_have_been(connection, stream_id, "WINDOW_UPDATE")
        return
    if not increment:
        raise StreamFault(ErrorCode.PROTOCOL_ERROR, "WINDOW_UPDATE of 0")
    stream.send_window += increment
    if stream.send_window > frames.MAX_WINDOW:
        raise StreamFault(ErrorCode.FLOW_CONTROL_ERROR, "window above 2^31-1")
    if stream.queued_bytes and stream.send_window > 0:
        connection.out.mark(stream)


def _must_have_been(connection: Connection, stream_id: int, what: str) -> None:
    if not stream_id or ((stream_id > connection.last_id or not stream_id & 1) and stream_id <= connection.final_id):
        raise ConnectionFault(ErrorCode.PROTOCOL_ERROR, f"{what} on idle stream {stream_id}")


def push_promise(connection: Connection, flags: int, stream_id: int, data: bytes, start: int, end: int) -> None:
    """Clients do not push."""
    raise ConnectionFault(ErrorCode.PROTOCOL_ERROR, "PUSH_PROMISE from a client")


Handler = Callable[[int, int, bytes, int, int], None]


def bound(connection: Connection) -> list[Handler]:
    """By frame type, from PRIORITY (2) to WINDOW_UPDATE (8)."""
    return [partial(h, connection) for h in (priority, rst_stream, settings, push_promise, ping, goaway, window_update)]
