"""SETTINGS (RFC 9113 section 6.5): ours on the wire, and the peer's checked."""

from __future__ import annotations

import struct
from collections.abc import Iterator

from picker.extproc.h2 import frames
from picker.extproc.h2.errors import ConnectionFault, ErrorCode
from picker.extproc.h2.limits import Limits

HEADER_TABLE_SIZE = 0x1
ENABLE_PUSH = 0x2
MAX_CONCURRENT_STREAMS = 0x3
INITIAL_WINDOW_SIZE = 0x4
MAX_FRAME_SIZE = 0x5
MAX_HEADER_LIST_SIZE = 0x6

DEFAULT_WINDOW = 65_535
ENTRY_BYTES = 6
MAX_ENTRIES = 64
"""In one frame. There are six settings; thousands in a frame are work without a purpose."""

_ENTRY = struct.Struct(">HI")

ACK_FRAME = frames.frame(frames.SETTINGS, frames.ACK, 0, b"")


def announcement(limits: Limits) -> bytes:
    """The first bytes a server sends: its settings, and the connection window raised to its size."""
    entries = [
        (HEADER_TABLE_SIZE, limits.header_table_bytes),
        (MAX_CONCURRENT_STREAMS, limits.max_streams),
        (INITIAL_WINDOW_SIZE, limits.stream_window_bytes),
        (MAX_FRAME_SIZE, limits.max_frame_bytes),
        (MAX_HEADER_LIST_SIZE, limits.header_list_bytes),
    ]
    settings = frames.frame(frames.SETTINGS, 0, 0, b"".join([_ENTRY.pack(*entry) for entry in entries]))
    return settings + frames.window_update(0, limits.connection_window_bytes - DEFAULT_WINDOW)


def entries(payload: bytes) -> Iterator[tuple[int, int]]:
    """The peer's settings, in order, unknown ones included. Raises ConnectionFault for a value that cannot be."""
    if len(payload) % ENTRY_BYTES:
        raise ConnectionFault(ErrorCode.FRAME_SIZE_ERROR, "SETTINGS of a length that is no multiple of 6")
    if len(payload) > MAX_ENTRIES * ENTRY_BYTES:
        raise ConnectionFault(ErrorCode.ENHANCE_YOUR_CALM, f"more than {MAX_ENTRIES} settings in a frame")
    for key, value in _ENTRY.iter_unpack(payload):
        if key == ENABLE_PUSH and value > 1:
            raise ConnectionFault(ErrorCode.PROTOCOL_ERROR, "ENABLE_PUSH is neither 0 nor 1")
        if key == INITIAL_WINDOW_SIZE and value > frames.MAX_WINDOW:
            raise ConnectionFault(ErrorCode.FLOW_CONTROL_ERROR, "INITIAL_WINDOW_SIZE above 2^31-1")
        if key == MAX_FRAME_SIZE and not frames.DEFAULT_FRAME_BYTES <= value <= 16_777_215:
            raise ConnectionFault(ErrorCode.PROTOCOL_ERROR, "MAX_FRAME_SIZE outside 2^14 to 2^24-1")
        yield key, value
