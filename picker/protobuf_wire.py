"""The protobuf wire format (protobuf.dev/programming-guides/encoding), as much as reading somebody else's messages takes.

Hand-written because what reads requests and answers does not know generated code; a message is walked once, and what is not asked for is
stepped over.
"""

from __future__ import annotations

from collections.abc import Iterator

VARINT, FIXED64, LENGTH, GROUP, END_GROUP, FIXED32 = range(6)
_MAX_VARINT_BYTES = 10
_MAX_FIELD_NUMBER = 2**29 - 1
_MAX_GROUP_DEPTH = 100
_CONTINUED = bytes(range(0x80, 0x100))


class WireError(ValueError):
    """These bytes are no protobuf message."""


def fields(data: bytes) -> Iterator[tuple[int, int | bytes]]:
    """The fields of a message in the order in which they stand, by number: an int for a varint, bytes for what has a length (text,
    messages, packed numbers) and for fixed-size numbers. Groups, which proto3 does not have, are stepped over. Raises WireError."""
    at, size = 0, len(data)
    depth = 0
    while at < size:
        tag, at = _varint(data, at)
        number, kind = tag >> 3, tag & 7
        if not 0 < number <= _MAX_FIELD_NUMBER:
            raise WireError(f"{number} is no field number")
        value: int | bytes = b""
        if kind == VARINT:
            value, at = _varint(data, at)
        elif kind in (LENGTH, FIXED64, FIXED32):
            length = 8 if kind == FIXED64 else 4
            if kind == LENGTH:
                length, at = _varint(data, at)
            if length > size - at:
                raise WireError("a field is longer than its message")
            value = data[at : at + length]
            at += length
        elif kind == GROUP:
            depth += 1
            if depth > _MAX_GROUP_DEPTH:
                raise WireError("groups are nested too deeply")
            continue
        elif kind == END_GROUP and depth:
            depth -= 1
            continue
        else:
            raise WireError(f"{kind} is no wire type of a field" if kind != END_GROUP else "a group ends that has not begun")
        if not depth:
            yield number, value
    if depth:
        raise WireError("a group does not end")


def _varint(data: bytes, at: int) -> tuple[int, int]:
    """A varint of at most 64 bits, and the offset after it."""
    try:
        value = data[at]
        if value < 0x80:
            return value, at + 1
        value &= 0x7F
        shift = 7
        for place in range(at + 1, at + _MAX_VARINT_BYTES):
            byte = data[place]
            value |= (byte & 0x7F) << shift
            if byte < 0x80:
                return value & 0xFFFF_FFFF_FFFF_FFFF, place + 1
            shift += 7
    except IndexError:
        raise WireError("a number is cut off") from None
    raise WireError("a number is longer than 10 bytes")


def packed_uint32(data: bytes) -> list[int]:
    """The numbers of a packed field; of longer ones the low 32 bits, as protobuf has it. Raises WireError."""
    out: list[int] = []
    add = out.append
    value = shift = 0
    for byte in data:
        if byte < 0x80:
            add((value | byte << shift) & 0xFFFF_FFFF if shift else byte)
            value = shift = 0
        else:
            value |= (byte & 0x7F) << shift
            shift += 7
            if shift == 7 * _MAX_VARINT_BYTES:
                raise WireError("a number is longer than 10 bytes")
    if shift:
        raise WireError("a number is cut off")
    return out


def packed_count(data: bytes) -> int:
    """How many numbers a packed field holds: each ends in the one byte that is below 0x80."""
    return len(data.translate(None, _CONTINUED))


def text(value: int | bytes, what: str) -> str:
    """A field that is text. Raises WireError."""
    try:
        return message(value, what).decode()
    except UnicodeDecodeError:
        raise WireError(f"{what} is not UTF-8") from None


def message(value: int | bytes, what: str) -> bytes:
    """A field that has a length. Raises WireError."""
    if isinstance(value, int):
        raise WireError(f"{what} is a number")
    return value


def number(value: int | bytes, what: str) -> int:
    """A field that is a varint. Raises WireError."""
    if not isinstance(value, int):
        raise WireError(f"{what} is not a number")
    return value
