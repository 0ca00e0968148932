"""What a hostile client can send for ever, and what becomes of it."""

from __future__ import annotations

import itertools
import tracemalloc
from collections.abc import Iterator

import pytest
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

from picker.extproc.h2.limits import Limits
from picker.extproc.h2.status import Status
from tests.picker.extproc.h2.peer import Pair, message
from tests.picker.extproc.h2.test_connection import block, frames_of

CALM = 0xB
LIMITS = Limits(control_burst=500, control_per_s=100, reset_burst=200, reset_per_s=20, header_block_frames=8)


def streams() -> Iterator[int]:
    return itertools.count(1, 2)


def rapid_reset() -> Iterator[bytes]:
    for stream in streams():
        yield HeadersFrame(stream, block(), flags=["END_HEADERS"]).serialize() + RstStreamFrame(stream, 8).serialize()


def made_to_reset() -> Iterator[bytes]:
    """The server is provoked to reset: a window update of 0 on a stream just opened."""
    for stream in streams():
        bad = WindowUpdateFrame(stream, 1).serialize()[:-1] + b"\0"
        yield HeadersFrame(stream, block(), flags=["END_HEADERS"]).serialize() + bad


def malformed() -> Iterator[bytes]:
    for stream in streams():
        yield HeadersFrame(stream, b"\x82\x86", flags=["END_HEADERS"]).serialize()


def continuation() -> Iterator[bytes]:
    yield HeadersFrame(1, b"").serialize()
    while True:
        yield ContinuationFrame(1, b"").serialize()


def forever(frame: bytes) -> Iterator[bytes]:
    return itertools.repeat(frame)


def on_a_stream(frame: bytes) -> Iterator[bytes]:
    yield HeadersFrame(1, block(), flags=["END_HEADERS"]).serialize()
    yield from itertools.repeat(frame)


def single_bytes() -> Iterator[bytes]:
    yield HeadersFrame(1, block(), flags=["END_HEADERS"]).serialize() + DataFrame(1, message(b"x" * 10_000)[:9]).serialize()
    yield from itertools.repeat(DataFrame(1, b"x").serialize())


FLOODS = {
    "rapid reset": rapid_reset,
    "made you reset": made_to_reset,
    "malformed requests": malformed,
    "continuation": continuation,
    "ping": lambda: forever(PingFrame(0, b"12345678").serialize()),
    "ping acks": lambda: forever(PingFrame(0, b"12345678", flags=["ACK"]).serialize()),
    "settings": lambda: forever(SettingsFrame(0, settings={4: 70_000}).serialize()),
    "priority": lambda: forever(PriorityFrame(7).serialize()),
    "unknown": lambda: forever(b"\0\0\0\xee\0\0\0\0\0"),
    "goaway": lambda: forever(GoAwayFrame(0).serialize()),
    "window updates": lambda: on_a_stream(WindowUpdateFrame(1, 1).serialize()),
    "empty data": lambda: on_a_stream(DataFrame(1, b"").serialize()),
    "padding only": lambda: on_a_stream(DataFrame(1, b"", flags=["PADDED"], pad_length=20).serialize()),
    "single bytes": single_bytes,
}


@pytest.mark.parametrize("name", FLOODS)
def test_a_flood_ends_its_connection(name: str) -> None:
    pair = Pair(LIMITS)
    answer = b""
    for sent, data in enumerate(FLOODS[name]()):
        answer += pair.raw(data)
        if pair.server.closing:
            break
        assert sent < 2_000
    last = frames_of(answer)[-1]
    assert isinstance(last, GoAwayFrame)
    assert last.error_code == CALM
    assert all(ends for ends in pair.calls.ends)
    assert all(len(ends) == 1 for ends in pair.calls.ends)
    assert pair.server.open_streams == 0
    assert pair.raw(data) == b""


@pytest.mark.parametrize("name", FLOODS)
def test_below_the_rate_nothing_happens(name: str) -> None:
    if name == "continuation":
        return
    pair = Pair(LIMITS)
    for sent, data in enumerate(FLOODS[name]()):
        pair.raw(data)
        pair.now_s += 0.06
        pair.server.tick(pair.now_s)
        assert not pair.server.closing
        if sent == 1_500:
            break


def test_work_earns_control_frames() -> None:
    """Some gRPC clients send a PING for every read."""
    pair = Pair(Limits(control_burst=100, control_per_s=0), auto_window=True)
    stream = pair.open()
    for _ in range(1_000):
        pair.client.ping(b"12345678")
        pair.say(stream, b"x")
    assert not pair.server.closing


def test_a_client_that_is_done_may_reset_each_stream() -> None:
    """As Envoy does."""
    pair = Pair(Limits(reset_burst=5, reset_per_s=0))
    for _ in range(100):
        stream = pair.open(b"x")
        pair.client.reset_stream(stream)
        pair.pump()
    assert not pair.server.closing
    assert pair.calls.ends == [[Status.CANCELLED]] * 100


def test_streams_beyond_the_limit_are_refused() -> None:
    pair = Pair(Limits(max_streams=3))
    for stream in (1, 3, 5):
        pair.raw(HeadersFrame(stream, block(), flags=["END_HEADERS"]).serialize())
    (refused,) = frames_of(pair.raw(HeadersFrame(7, block(), flags=["END_HEADERS"]).serialize()))
    assert isinstance(refused, RstStreamFrame) and (refused.stream_id, refused.error_code) == (7, 7)
    # What was on its way for it is no error.
    assert pair.raw(DataFrame(7, message(b"x")).serialize()) == b""
    pair.raw(DataFrame(1, b"", flags=["END_STREAM"]).serialize())
    pair.raw(HeadersFrame(9, block(), flags=["END_HEADERS"]).serialize())
    assert pair.server.open_streams == 3


def test_a_connection_that_holds_too_much_ends_the_call_that_made_it_so() -> None:
    pair = Pair(Limits(connection_bytes=100_000))
    half = message(b"x" * 40_000)[:30_000]
    for stream in (1, 3, 5):
        pair.raw(HeadersFrame(stream, block(), flags=["END_HEADERS"]).serialize())
        for at in range(0, len(half), 15_000):
            pair.raw(DataFrame(stream, half[at : at + 15_000]).serialize())
    assert pair.server.open_streams == 3
    pair.raw(HeadersFrame(7, block(), flags=["END_HEADERS"]).serialize())
    frames = frames_of(pair.raw(DataFrame(7, half[:15_000]).serialize()))
    assert [(f.stream_id, f.error_code) for f in frames if isinstance(f, RstStreamFrame)] == [(7, CALM)]
    assert pair.calls.ends == [[], [], [], [Status.RESOURCE_EXHAUSTED]]


def test_what_is_sent_no_longer_counts() -> None:
    pair = Pair(Limits(connection_bytes=300_000))
    for _ in range(50):
        assert pair.answers[pair.open(b"make 60000", end=True)].status == 0


def test_a_message_in_single_bytes_costs_its_size() -> None:
    pair = Pair(Limits(control_burst=10**6))
    pair.raw(HeadersFrame(1, block(), flags=["END_HEADERS"]).serialize())
    data = message(b"x" * 100_000)[:-1]
    tracemalloc.start()
    for at in range(50_000):
        pair.server.receive(DataFrame(1, data[at : at + 1]).serialize(), pair.now_s)
    used, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert used < 500_000


def test_a_frame_in_single_bytes_is_not_copied_again_and_again() -> None:
    pair = Pair()
    pair.raw(HeadersFrame(1, block(), flags=["END_HEADERS"]).serialize())
    data = DataFrame(1, message(b"x" * 16_000), flags=["END_STREAM"]).serialize()
    for at in range(len(data)):
        pair.server.receive(data[at : at + 1], pair.now_s)
    assert pair.calls.made[0].received == [b"x" * 16_000]


def test_closed_streams_are_forgotten() -> None:
    pair = Pair(Limits(reset_burst=10**6))
    for stream in range(1, 8_001, 2):
        pair.raw(HeadersFrame(stream, block(), flags=["END_HEADERS", "END_STREAM"]).serialize())
    assert pair.server.open_streams == 0
    assert len(pair.server.recent) <= 512
    assert len(pair.server.openings.decoder._heads) <= 256
