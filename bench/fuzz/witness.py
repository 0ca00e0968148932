"""What a server says, held against the rules for those who say it (RFC 9113)."""

from __future__ import annotations

from hpack import Decoder

from bench.fuzz.finding import demand
from picker.extproc.h2 import frames as h2
from picker.extproc.h2.frames import unpack_header, unpack_word
from picker.extproc.h2.settings import DEFAULT_WINDOW


class Witness:
    """Listens to one connection whose client sends `client_bytes`, all of which count as sent before anything is answered.

    So the windows are upper bounds: no server may ever go beyond them.
    """

    def __init__(self, client_bytes: bytes) -> None:
        self._decoder = Decoder()
        self._ended: set[int] = set()
        self._headed: set[int] = set()
        self.bodies: dict[int, bytearray] = {}
        """The DATA of each stream."""
        self._window, self._increments, self._initial = _windows(client_bytes)

    def saw(self, data: bytes) -> None:
        """Whole frames. Raises Finding."""
        at = 0
        while at < len(data):
            demand(len(data) - at >= h2.HEADER_BYTES, "half a frame")
            high, low, kind, flags, stream = unpack_header(data, at)
            start = at + h2.HEADER_BYTES
            at = start + (high << 8 | low)
            demand(at <= len(data) and at - start <= h2.DEFAULT_FRAME_BYTES, "a frame of a wrong length", at - start)
            payload = data[start:at]
            if kind == h2.HEADERS:
                self._headers(stream, flags, payload)
            elif kind == h2.DATA:
                self._data(stream, flags, payload)
            elif kind == h2.RST_STREAM:
                self._ended.add(stream)
            else:
                demand(kind in (h2.SETTINGS, h2.PING, h2.GOAWAY, h2.WINDOW_UPDATE), "a frame that no server sends", kind)
                demand(kind != h2.WINDOW_UPDATE or unpack_word(payload, 0)[0], "a WINDOW_UPDATE of 0")

    def _headers(self, stream: int, flags: int, payload: bytes) -> None:
        demand(flags & h2.END_HEADERS and stream not in self._ended, "HEADERS on a stream that has ended", stream)
        fields = dict(self._decoder.decode(payload, raw=True))
        first = stream not in self._headed
        demand((b":status" in fields) == first, "a status is missing, or comes twice", fields)
        demand(first or flags & h2.END_STREAM, "trailers that do not end the stream", stream)
        if flags & h2.END_STREAM:
            demand(b"grpc-status" in fields, "a call ends without a status", fields)
            self._ended.add(stream)
        self._headed.add(stream)

    def _data(self, stream: int, flags: int, payload: bytes) -> None:
        demand(stream in self._headed and stream not in self._ended, "DATA in front of HEADERS, or behind the end", stream)
        self._window -= len(payload)
        body = self.bodies.setdefault(stream, bytearray())
        body += payload
        demand(self._window >= 0, "more DATA than the connection's window", self._window)
        room = self._initial + self._increments.get(stream, 0)
        demand(len(body) <= room, "more DATA than the stream's window", stream, len(body), room)
        if flags & h2.END_STREAM:
            self._ended.add(stream)


def _windows(data: bytes) -> tuple[int, dict[int, int], int]:
    """The connection's window, each stream's increments, and the largest initial window, as far as the bytes are frames."""
    connection, increments, initial = DEFAULT_WINDOW, dict[int, int](), DEFAULT_WINDOW
    at = len(h2.PREFACE)
    while len(data) - at >= h2.HEADER_BYTES:
        high, low, kind, _, stream = unpack_header(data, at)
        start = at + h2.HEADER_BYTES
        at = start + (high << 8 | low)
        if at > len(data):
            break
        payload, stream = data[start:at], stream & h2.MAX_STREAM_ID
        if kind == h2.WINDOW_UPDATE and len(payload) == 4:
            increment = unpack_word(payload, 0)[0] & h2.MAX_STREAM_ID
            if stream:
                increments[stream] = increments.get(stream, 0) + increment
            else:
                connection += increment
        elif kind == h2.SETTINGS:
            for i in range(0, len(payload) - 5, 6):
                if payload[i : i + 2] == b"\0\x04":
                    initial = max(initial, unpack_word(payload, i + 2)[0])
    return connection, increments, initial
