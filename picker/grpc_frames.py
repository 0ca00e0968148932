"""Messages in the body of a gRPC call: one byte that says whether it is compressed, four of length (big-endian), the message.

Source: the gRPC specification, PROTOCOL-HTTP2.md, Length-Prefixed-Message.
"""

from __future__ import annotations

from collections.abc import Sequence

PREFIX_BYTES = 5
MAX_HELD_BYTES = 1024 * 1024
"""Of an unfinished message of an answer; a longer one is stepped over. A vector of 16,384 floats has 64 KiB."""
_NOTHING: Sequence[bytes] = ()


class FrameError(ValueError):
    """The body of a call is not made of gRPC messages that can be read."""


def is_grpc(content_type: str) -> bool:
    """Whether a lower-case content type is that of a gRPC call: `application/grpc`, with or without `+proto` and the like."""
    if not content_type.startswith("application/grpc"):
        return False
    rest = content_type[16:]
    return not rest or rest[0] in "+; "


def only_message(body: bytes) -> bytes:
    """The message of a call that takes exactly one. Raises FrameError."""
    if len(body) < PREFIX_BYTES:
        raise FrameError("the body is shorter than the prefix of a gRPC message")
    flag, size = body[0], int.from_bytes(body[1:PREFIX_BYTES], "big")
    if flag == 1:
        raise FrameError("compressed gRPC messages are not supported")
    if flag:
        raise FrameError(f"{flag} is no compressed-flag of a gRPC message")
    if size > len(body) - PREFIX_BYTES:
        raise FrameError(f"a gRPC message of {size} bytes is cut off after {len(body) - PREFIX_BYTES}")
    if size < len(body) - PREFIX_BYTES:
        raise FrameError("this call takes one gRPC message, more follows it")
    return body[PREFIX_BYTES:]


def framed(message: bytes) -> bytes:
    """`message` with its prefix, not compressed."""
    return b"\x00" + len(message).to_bytes(4, "big") + message


class FrameReader:
    """Cuts an answer that comes in pieces into messages. Never raises.

    `unread` counts messages that were stepped over: compressed, or longer than 1 MiB and not whole in one piece. `broken` says that what
    came is not gRPC; nothing is read from then on.
    """

    __slots__ = ("_held", "_skip", "broken", "unread")

    def __init__(self) -> None:
        self.unread = 0
        self.broken = False
        self._held = bytearray()
        self._skip = 0

    def feed(self, chunk: bytes) -> Sequence[bytes]:
        """The messages that this piece completes."""
        if self.broken:
            return _NOTHING
        if self._skip:
            skipped = min(self._skip, len(chunk))
            self._skip -= skipped
            if skipped == len(chunk):
                return _NOTHING
            chunk = chunk[skipped:]
        if self._held:
            self._held += chunk
            if len(self._held) < PREFIX_BYTES:
                return _NOTHING
            # A message in small pieces is looked at once it is whole, unless it is not going to be kept.
            if self._held[0] == 0 and self._missing() > 0 and len(self._held) + self._missing() <= PREFIX_BYTES + MAX_HELD_BYTES:
                return _NOTHING
            chunk = bytes(self._held)
            self._held = bytearray()
        return self._cut(chunk)

    def _missing(self) -> int:
        return PREFIX_BYTES + int.from_bytes(self._held[1:PREFIX_BYTES], "big") - len(self._held)

    def _cut(self, data: bytes) -> Sequence[bytes]:
        out: list[bytes] = []
        at, end = 0, len(data)
        while end - at >= PREFIX_BYTES:
            flag, size = data[at], int.from_bytes(data[at + 1 : at + PREFIX_BYTES], "big")
            start = at + PREFIX_BYTES
            if flag > 1:
                self.broken = True
                self.unread += 1
                return out
            whole = size <= end - start
            if flag or (not whole and size > MAX_HELD_BYTES):
                self.unread += 1
                if not whole:
                    self._skip = size - (end - start)
                    return out
            elif whole:
                out.append(data[start : start + size])
            else:
                break
            at = start + size
        if at < end:
            self._held += data[at:]
        return out

    @property
    def cut_off(self) -> bool:
        """Whether a message has begun and not ended."""
        return bool(self._held or self._skip)
