"""What a hostile client can send for ever. Each flood is told the first stream id it may use."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator

from hyperframe.frame import (
    ContinuationFrame,
    DataFrame,
    GoAwayFrame,
    HeadersFrame,
    PingFrame,
    PriorityFrame,
    RstStreamFrame,
    SettingsFrame,
    WindowUpdateFrame,
)

from tests.picker.extproc.h2.peer import message
from tests.picker.extproc.h2.test_connection import block

CALM = 0xB
LARGE = message(b"make 1000000")
"""Answered with a megabyte."""

Flood = Callable[[int], Iterator[bytes]]


def opened(stream: int, said: bytes = b"") -> bytes:
    """A call, and the beginning of its body."""
    head = HeadersFrame(stream, block(), flags=["END_HEADERS"]).serialize()
    return head + DataFrame(stream, said).serialize() if said else head


def rapid_reset(first: int) -> Iterator[bytes]:
    for stream in itertools.count(first, 2):
        yield opened(stream) + RstStreamFrame(stream, 8).serialize()


def made_to_reset(first: int) -> Iterator[bytes]:
    """The server is provoked to reset: a window update of 0 on a stream just opened."""
    for stream in itertools.count(first, 2):
        yield opened(stream) + WindowUpdateFrame(stream, 1).serialize()[:-1] + b"\0"


def malformed(first: int) -> Iterator[bytes]:
    for stream in itertools.count(first, 2):
        yield HeadersFrame(stream, b"\x82\x86", flags=["END_HEADERS"]).serialize()


def empty_blocks(first: int) -> Iterator[bytes]:
    for stream in itertools.count(first, 2):
        yield HeadersFrame(stream, b"", flags=["END_HEADERS"]).serialize()


def continuation(first: int) -> Iterator[bytes]:
    yield HeadersFrame(first, b"").serialize()
    while True:
        yield ContinuationFrame(first, b"").serialize()


def single_bytes(first: int) -> Iterator[bytes]:
    yield opened(first, message(b"x" * 10_000)[:9])
    yield from itertools.repeat(DataFrame(first, b"x").serialize())


def tiny_windows(first: int) -> Iterator[bytes]:
    """No room for an answer at first, then for one byte at a time."""
    yield SettingsFrame(0, settings={4: 0}).serialize() + opened(first, LARGE)
    yield from itertools.repeat(WindowUpdateFrame(first, 1).serialize())


def tiny_connection_window(first: int) -> Iterator[bytes]:
    yield SettingsFrame(0, settings={4: 2**30}).serialize() + opened(first, LARGE)
    yield from itertools.repeat(WindowUpdateFrame(0, 1).serialize())


def windows_that_come_and_go(first: int) -> Iterator[bytes]:
    yield SettingsFrame(0, settings={4: 0}).serialize() + opened(first, LARGE)
    yield from itertools.cycle([SettingsFrame(0, settings={4: size}).serialize() for size in (1, 0)])


def always(frame: bytes) -> Flood:
    return lambda first: itertools.repeat(frame)


def on_a_stream(frame: Callable[[int], bytes]) -> Flood:
    """The frame of one stream, which is opened first."""
    return lambda first: itertools.chain([opened(first)], itertools.repeat(frame(first)))


FLOODS: dict[str, Flood] = {
    "rapid reset": rapid_reset,
    "made you reset": made_to_reset,
    "malformed requests": malformed,
    "empty header blocks": empty_blocks,
    "continuation": continuation,
    "ping": always(PingFrame(0, b"12345678").serialize()),
    "ping acks": always(PingFrame(0, b"12345678", flags=["ACK"]).serialize()),
    "settings": always(SettingsFrame(0, settings={4: 70_000}).serialize()),
    "priority": lambda first: itertools.repeat(PriorityFrame(first).serialize()),
    "unknown": always(b"\0\0\0\xee\0\0\0\0\0"),
    "goaway": always(GoAwayFrame(0).serialize()),
    "window updates": on_a_stream(lambda stream: WindowUpdateFrame(stream, 1).serialize()),
    "empty data": on_a_stream(lambda stream: DataFrame(stream, b"").serialize()),
    "padding only": on_a_stream(lambda stream: DataFrame(stream, b"", flags=["PADDED"], pad_length=20).serialize()),
    "single bytes": single_bytes,
    "tiny windows": tiny_windows,
    "tiny connection window": tiny_connection_window,
    "windows that come and go": windows_that_come_and_go,
}
