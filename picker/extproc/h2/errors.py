"""What goes wrong on an HTTP/2 connection, by scope, with the code the peer is told (RFC 9113 section 7)."""

from __future__ import annotations

import enum


class ErrorCode(enum.IntEnum):
    """Sent in RST_STREAM and GOAWAY."""

    NO_ERROR = 0x0
    PROTOCOL_ERROR = 0x1
    INTERNAL_ERROR = 0x2
    FLOW_CONTROL_ERROR = 0x3
    SETTINGS_TIMEOUT = 0x4
    STREAM_CLOSED = 0x5
    FRAME_SIZE_ERROR = 0x6
    REFUSED_STREAM = 0x7
    CANCEL = 0x8
    COMPRESSION_ERROR = 0x9
    ENHANCE_YOUR_CALM = 0xB


class ConnectionFault(Exception):  # noqa: N818  (the peer's fault, answered; not an error of this program)
    """The connection cannot go on: GOAWAY with `code` and the text, then close."""

    def __init__(self, code: ErrorCode, text: str) -> None:
        super().__init__(text)
        self.code = code


class StreamFault(Exception):  # noqa: N818
    """One stream cannot go on: RST_STREAM with `code`. The connection lives."""

    def __init__(self, code: ErrorCode, text: str) -> None:
        super().__init__(text)
        self.code = code
