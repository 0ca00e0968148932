"""What a hostile client can send for ever, and what becomes of it."""

from __future__ import annotations

import tracemalloc

import pytest
from hyperframe.frame import DataFrame, GoAwayFrame, HeadersFrame, RstStreamFrame, SettingsFrame, WindowUpdateFrame

from picker.extproc.h2.headers import literal
from picker.extproc.h2.limits import Limits
from picker.extproc.h2.status import Status
from tests.picker.extproc.h2.floods import CALM, FLOODS, opened
from tests.picker.extproc.h2.peer import Pair, message
from tests.picker.extproc.h2.test_connection import block, frames_of

LIMITS = Limits(control_burst=500, control_per_s=100, reset_burst=200, reset_per_s=20, header_block_frames=8)


@pytest.mark.parametrize("name", FLOODS)
def test_a_flood_ends_its_connection(name: str) -> None:
    pair = Pair(LIMITS)
    answer = b""
    for sent, data in enumerate(FLOODS[name](1)):
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
    for sent, data in enumerate(FLOODS[name](1)):
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


def test_answered_streams_pay_for_impatient_ones() -> None:
    """A busy proxy's clients that leave early must not end the connection of all the others."""
    pair = Pair(Limits(reset_burst=5, reset_per_s=0))
    for _ in range(100):
        pair.open(b"x", end=True)
        pair.client.reset_stream(pair.open())
        pair.pump()
    for _ in range(5):
        assert not pair.server.closing
        pair.client.reset_stream(pair.open())
        pair.pump()
    assert pair.server.closing


def test_refusals_do_not_pay_for_resets() -> None:
    """They cost the client as little as they earn it."""
    get = literal([(b":method", b"GET"), (b":scheme", b"http"), (b":path", b"/"), (b":authority", b"a")])
    pair = Pair(Limits(reset_burst=50, reset_per_s=0, control_burst=10_000))
    for stream in range(1, 2_000, 4):
        refused = HeadersFrame(stream, get, flags=["END_HEADERS"]).serialize() + RstStreamFrame(stream, 8).serialize()
        pair.raw(refused + opened(stream + 2) + RstStreamFrame(stream + 2, 8).serialize())
        if pair.server.closing:
            break
    assert pair.server.closing
    assert len(pair.calls.made) <= 51


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


def test_a_stream_that_takes_a_byte_now_and_then_is_reset() -> None:
    pair = Pair(Limits(stall_s=5.0))
    pair.raw(SettingsFrame(0, settings={4: 0}).serialize())
    pair.raw(HeadersFrame(1, block(), flags=["END_HEADERS"]).serialize() + DataFrame(1, message(b"make 1000000")).serialize())
    for _ in range(60):
        answer = frames_of(pair.raw(WindowUpdateFrame(1, 1).serialize()))
        assert [len(f.data) for f in answer if isinstance(f, DataFrame)] == [1]
        pair.now_s += 0.1
        pair.server.tick(pair.now_s)
        if not pair.server.open_streams:
            break
    assert pair.calls.ends == [[Status.CANCELLED]]
    (reset,) = [f for f in frames_of(pair.raw(b"")) if isinstance(f, RstStreamFrame)]
    assert (reset.stream_id, reset.error_code) == (1, 8)


def test_nothing_is_kept_of_a_connection_that_is_gone() -> None:
    pair = Pair()
    pair.raw(SettingsFrame(0, settings={4: 0}).serialize())
    pair.server.receive(HeadersFrame(1, block(), flags=["END_HEADERS"]).serialize(), pair.now_s)
    pair.server.receive(DataFrame(1, message(b"make 1000000")).serialize() + HeadersFrame(3, block()).serialize(), pair.now_s)
    pair.server.receive(b"\0", pair.now_s)
    pair.server.lost()
    assert not pair.server.backlogged and not pair.server.streams and not pair.server._buffer
    assert pair.server.openings.block is None and pair.server.intake.memory_bytes == 0
