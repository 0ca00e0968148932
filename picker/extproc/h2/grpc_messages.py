"""gRPC's length-prefixed messages: five bytes (compressed?, length), then the message; cut anywhere by DATA frames."""

from __future__ import annotations

import re
import struct
import zlib
from collections.abc import Sequence

from picker.extproc.h2.status import Status, StatusError

PREFIX_BYTES = 5
ENCODINGS = {b"gzip": 31, b"deflate": 15}
"""Name to zlib window bits."""

_PREFIX = struct.Struct(">BI")
_TIMEOUT = re.compile(rb"(\d{1,8})([HMSmun])")
_UNITS_S = {b"H": 3600.0, b"M": 60.0, b"S": 1.0, b"m": 1e-3, b"u": 1e-6, b"n": 1e-9}

_unpack = _PREFIX.unpack_from


def prefix(length: int) -> bytes:
    """In front of an uncompressed message of `length` bytes."""
    return _PREFIX.pack(0, length)


def timeout_s(value: bytes) -> float | None:
    """A grpc-timeout header in seconds; None when it is not one."""
    match = _TIMEOUT.fullmatch(value)
    return None if match is None else int(match[1]) * _UNITS_S[match[2]]


class MessageReader:
    """Puts one stream's messages together. `held_bytes` is what it keeps of an incomplete one."""

    __slots__ = ("_limit", "_partial", "_wbits")

    def __init__(self, encoding: bytes, limit_bytes: int) -> None:
        self._limit = limit_bytes
        self._wbits = ENCODINGS.get(encoding)
        self._partial: bytearray | None = None

    @property
    def held_bytes(self) -> int:
        """Of an incomplete message."""
        return 0 if self._partial is None else len(self._partial)

    def feed(self, data: bytes, start: int, end: int) -> Sequence[bytes]:
        """The messages that `data[start:end]` completes. Raises StatusError when they are too large or cannot be read."""
        messages: list[bytes] = []
        if self._partial is not None:
            # One growing buffer, not a list of pieces: a peer that sends single bytes must not cost an object for each.
            self._partial += memoryview(data)[start:end]
            if len(self._partial) < PREFIX_BYTES:
                return ()
            stop = PREFIX_BYTES + self._length(self._partial, 0)
            if len(self._partial) < stop:
                return ()
            whole = memoryview(self._partial)
            message = bytes(whole[PREFIX_BYTES:stop])
            messages.append(self._plain(message) if whole[0] else message)
            data, start = bytes(whole[stop:]), 0
            end = len(data)
            self._partial = None
        elif end - start >= PREFIX_BYTES:
            # Nearly always a frame is one whole message: one copy, straight into what protobuf wants.
            flag, length = _unpack(data, start)
            if length == end - start - PREFIX_BYTES and not flag and length <= self._limit:
                return (data[start + PREFIX_BYTES : end],)
        while end - start >= PREFIX_BYTES:
            stop = start + PREFIX_BYTES + self._length(data, start)
            if stop > end:
                break
            message = data[start + PREFIX_BYTES : stop]
            messages.append(self._plain(message) if data[start] else message)
            start = stop
        if start < end:
            self._partial = bytearray(memoryview(data)[start:end])
        return messages

    def _length(self, data: bytes | bytearray, at: int) -> int:
        """Checked before a single byte of the message is kept."""
        flag, length = _unpack(data, at)
        if flag > 1:
            raise StatusError(Status.INTERNAL, f"message flag {flag} is not known")
        if flag and self._wbits is None:
            raise StatusError(Status.INTERNAL, "a compressed message without grpc-encoding")
        if length > self._limit:
            raise StatusError(Status.RESOURCE_EXHAUSTED, f"a message of {length} bytes is larger than the limit of {self._limit}")
        return int(length)

    def _plain(self, packed: bytes) -> bytes:
        assert self._wbits is not None
        inflater = zlib.decompressobj(self._wbits)
        try:
            plain = inflater.decompress(packed, self._limit + 1)
        except zlib.error as error:
            raise StatusError(Status.INTERNAL, f"a message cannot be decompressed: {error}") from None
        if len(plain) > self._limit:
            raise StatusError(Status.RESOURCE_EXHAUSTED, f"a message is larger than the limit of {self._limit} bytes once decompressed")
        if not inflater.eof or inflater.unused_data:
            raise StatusError(Status.INTERNAL, "a message cannot be decompressed: its end is not where it should be")
        return plain
