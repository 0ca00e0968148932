"""HTTP/2 frames on the wire (RFC 9113 section 4): layout, numbers, building."""

from __future__ import annotations

import struct

from picker.extproc.h2.errors import ConnectionFault, ErrorCode

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"

DATA = 0x0
HEADERS = 0x1
PRIORITY = 0x2
RST_STREAM = 0x3
SETTINGS = 0x4
PUSH_PROMISE = 0x5
PING = 0x6
GOAWAY = 0x7
WINDOW_UPDATE = 0x8
CONTINUATION = 0x9

END_STREAM = 0x1
ACK = 0x1
END_HEADERS = 0x4
PADDED = 0x8
HAS_PRIORITY = 0x20

HEADER_BYTES = 9
DEFAULT_FRAME_BYTES = 16_384
SMALL_BYTES = 64
"""DATA with less than this moves next to nothing: nobody who means well sends, or lets us send, many of them."""
MAX_STREAM_ID = MAX_WINDOW = 0x7FFF_FFFF

_HEADER = struct.Struct(">HBBBI")  # the length as 16 + 8 bits: struct has no 24-bit integer
_WORD = struct.Struct(">I")
_GOAWAY = struct.Struct(">II")
unpack_header = _HEADER.unpack_from
unpack_word = _WORD.unpack_from


def frame_header(length: int, kind: int, flags: int, stream_id: int) -> bytes:
    """The nine bytes in front of a payload of `length` bytes."""
    return _HEADER.pack(length >> 8, length & 0xFF, kind, flags, stream_id)


def frame(kind: int, flags: int, stream_id: int, payload: bytes) -> bytes:
    """A whole frame."""
    length = len(payload)
    return _HEADER.pack(length >> 8, length & 0xFF, kind, flags, stream_id) + payload


def window_update(stream_id: int, increment: int) -> bytes:
    """Gives back `increment` bytes."""
    return frame(WINDOW_UPDATE, 0, stream_id, _WORD.pack(increment))


def rst_stream(stream_id: int, code: int) -> bytes:
    """Ends a stream at once."""
    return frame(RST_STREAM, 0, stream_id, _WORD.pack(code))


def goaway(last_id: int, code: int, text: str = "") -> bytes:
    """No streams above `last_id` will be handled. The text is for the peer's log."""
    return frame(GOAWAY, 0, 0, _GOAWAY.pack(last_id, code) + text.encode("ascii", "replace")[:200])


def unpad(data: bytes, start: int, end: int) -> tuple[int, int]:
    """Where the content of a padded payload lies. Raises ConnectionFault when the padding does not fit."""
    if start == end:
        raise ConnectionFault(ErrorCode.FRAME_SIZE_ERROR, "a padded frame without a pad length")
    inner = end - data[start]
    if inner < start + 1:
        raise ConnectionFault(ErrorCode.PROTOCOL_ERROR, "more padding than payload")
    return start + 1, inner
