"""Header blocks: HPACK in both directions, and what a request's header list must look like (RFC 9113 section 8).

A proxy's streams carry the same block over and over: after the first stream it is a dozen bytes of table indices. A block is remembered
with what it decoded to as long as that stays true: the block itself must not have changed the dynamic table (its meaning would be more than
its headers), and any later change of the table forgets all of them (the same indices then mean something else). Looking a block up costs
0.1 us; decoding a gRPC client's eight fields 20 to 40 us.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from hpack import Decoder, HeaderTuple
from hpack.exceptions import HPACKError, OversizedHeaderListError
from hpack.table import HeaderTable

from picker.extproc.h2.errors import ConnectionFault, ErrorCode

Headers = Sequence[tuple[bytes, bytes]]

_REMEMBERED = 256
_REMEMBERED_BYTES = 2_048
"""A larger block, or one of a larger list, is decoded each time: 256 of them must not take megabytes per connection."""
_MAX_SIZE_UPDATES = 2
"""At the start of a block (RFC 7541 section 4.2). A block of 64 KiB full of them took 100 ms."""
_NAME = re.compile(rb"[!#$%&'*+\-.^_`|~0-9a-z]+")
_BAD_VALUE = re.compile(rb"[\x00\r\n]|^[ \t]|[ \t]$")
_PSEUDO = frozenset({b":method", b":scheme", b":authority", b":path"})
_OF_HTTP_1 = frozenset({b"connection", b"keep-alive", b"proxy-connection", b"transfer-encoding", b"upgrade"})
_OVERHEAD_BYTES = 32
_SIZE_UPDATES = frozenset(bytes((first,)) for first in range(0x20, 0x40))


@dataclass(frozen=True, slots=True)
class RequestHead:
    """What this server needs of a request's headers. `malformed` says why the stream must be reset; None when it need not."""

    method: bytes = b""
    path: bytes = b""
    content_type: bytes = b""
    encoding: bytes = b"identity"
    timeout: bytes | None = None
    content_length: int | None = None
    size_bytes: int = 0
    malformed: str | None = None


class _WatchedTable(HeaderTable):
    """Counts its changes."""

    def __init__(self) -> None:
        super().__init__()
        self.changes = 0

    def add(self, name: bytes, value: bytes) -> None:
        """Whatever it does to the table, indices mean something else afterwards."""
        self.changes += 1
        super().add(name, value)

    @property
    def maxsize(self) -> int:
        """In bytes."""
        return self._maxsize

    @maxsize.setter
    def maxsize(self, newmax: int) -> None:
        self.changes += 1
        HeaderTable.maxsize.fset(self, newmax)  # type: ignore[attr-defined]


class BlockDecoder:
    """The HPACK state of one connection's requests."""

    def __init__(self, table_bytes: int, hard_limit_bytes: int) -> None:
        self._table = _WatchedTable()
        self._decoder = Decoder(hard_limit_bytes)
        self._decoder.header_table = self._table
        self._decoder.max_allowed_table_size = table_bytes
        self._decoder.header_table_size = min(table_bytes, HeaderTable.DEFAULT_SIZE)
        self._heads: dict[bytes, RequestHead] = {}
        self._heads_at = self._table.changes

    def request(self, block: bytes) -> RequestHead:
        """The head of a request. Raises ConnectionFault when the block cannot be decoded."""
        head = self._heads.get(block)
        if head is not None:
            return head
        before = self._table.changes
        head = parse(self.fields(block))
        if (
            self._table.changes == before
            and len(self._heads) < _REMEMBERED
            and len(block) <= _REMEMBERED_BYTES
            and head.size_bytes <= _REMEMBERED_BYTES
        ):
            self._heads[block] = head
        return head

    def trailers(self, block: bytes) -> str | None:
        """Decodes a request's trailers; what is wrong with them, or None."""
        for name, value in self.fields(block):
            if name[:1] == b":":
                return "a pseudo-header in trailers"
            if (wrong := _wrong(name, value)) is not None:
                return wrong
        return None

    def fields(self, block: bytes) -> list[tuple[bytes, bytes]]:
        """The header list of any block. Raises ConnectionFault."""
        if _too_many_size_updates(block):
            raise ConnectionFault(ErrorCode.COMPRESSION_ERROR, "a header block with more than two table size updates")
        try:
            decoded: Iterable[HeaderTuple] = self._decoder.decode(block, raw=True)
        except OversizedHeaderListError:
            raise ConnectionFault(ErrorCode.ENHANCE_YOUR_CALM, "header list too large") from None
        except (HPACKError, UnicodeError, IndexError, ValueError) as error:
            raise ConnectionFault(ErrorCode.COMPRESSION_ERROR, f"header block cannot be decoded: {type(error).__name__}") from None
        if self._table.changes != self._heads_at:
            self._heads_at = self._table.changes
            self._heads.clear()
        return [(bytes(name), bytes(value)) for name, value in decoded]


def _too_many_size_updates(block: bytes) -> bool:
    at = 0
    for _ in range(_MAX_SIZE_UPDATES):
        if block[at : at + 1] not in _SIZE_UPDATES:
            return False
        if block[at] & 0x1F == 0x1F:
            # The integer goes on until a byte below 128; hpack refuses one of more than ten bytes.
            while at + 1 < len(block) and block[at + 1] & 0x80:
                at += 1
            at += 1
        at += 1
    return block[at : at + 1] in _SIZE_UPDATES


def parse(fields: Headers) -> RequestHead:
    """The head in a header list, or what is malformed about it."""
    pseudo: dict[bytes, bytes] = {}
    known: dict[bytes, bytes] = {}
    size = 0
    regular = False
    for name, value in fields:
        size += len(name) + len(value) + _OVERHEAD_BYTES
        if name[:1] == b":":
            if regular:
                return RequestHead(malformed="a pseudo-header behind a regular one")
            if name not in _PSEUDO or name in pseudo:
                return RequestHead(malformed="an unknown or repeated pseudo-header")
            if _BAD_VALUE.search(value):
                return RequestHead(malformed="a forbidden character in a pseudo-header")
            pseudo[name] = value
            continue
        regular = True
        if (wrong := _wrong(name, value)) is not None:
            return RequestHead(malformed=wrong)
        if name == b"content-length" and known.get(name, value) != value:
            return RequestHead(malformed="contradicting content-length")
        known[name] = value
    if not pseudo.get(b":method") or not pseudo.get(b":scheme") or not pseudo.get(b":path"):
        return RequestHead(malformed="a pseudo-header is missing or empty")
    length = known.get(b"content-length")
    if length is not None and (not length.isdigit() or len(length) > 18):
        return RequestHead(malformed="content-length is not a number")
    return RequestHead(
        method=pseudo[b":method"],
        path=pseudo[b":path"],
        content_type=known.get(b"content-type", b""),
        encoding=known.get(b"grpc-encoding", b"identity"),
        timeout=known.get(b"grpc-timeout"),
        content_length=None if length is None else int(length),
        size_bytes=size,
    )


def _wrong(name: bytes, value: bytes) -> str | None:
    if _NAME.fullmatch(name) is None:
        return "a forbidden character in a header name"
    if _BAD_VALUE.search(value):
        return "a forbidden character in a header value"
    if name in _OF_HTTP_1 or (name == b"te" and value != b"trailers"):
        return "a connection-specific header"
    return None


def literal(fields: Headers) -> bytes:
    """A block of literals without indexing: means the same on every connection and after any SETTINGS, so it can be made once."""
    parts: list[bytes] = []
    for name, value in fields:
        parts += (b"\x00", _integer(len(name)), name, _integer(len(value)), value)
    return b"".join(parts)


def _integer(number: int) -> bytes:
    """With a prefix of 7 bits, the Huffman flag off (RFC 7541 section 5.1)."""
    if number < 127:
        return bytes((number,))
    number -= 127
    out = bytearray(b"\x7f")
    while number >= 128:
        out.append(number & 127 | 128)
        number >>= 7
    out.append(number)
    return bytes(out)
