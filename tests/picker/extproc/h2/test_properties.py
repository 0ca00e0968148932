"""However a client's bytes are cut, the outcome is the same; whatever they are, the connection survives them or says GOAWAY."""

from __future__ import annotations

import itertools
import random

from hpack import Encoder
from hyperframe.frame import DataFrame, HeadersFrame, PingFrame, PriorityFrame, RstStreamFrame, SettingsFrame, WindowUpdateFrame
from hypothesis import given, settings
from hypothesis import strategies as st

from picker.extproc.h2.connection import Connection
from picker.extproc.h2.limits import Limits
from tests.picker.extproc.h2.peer import ECHO, PREFACE, Calls, message, request
from tests.picker.extproc.h2.test_connection import frames_of

LIMITS = Limits(max_message_bytes=20_000, connection_bytes=200_000, stream_outbound_bytes=30_000)


def client_bytes() -> bytes:
    """A valid conversation: dynamic-table headers, padding, messages cut by frames, pings, resets, window updates."""
    encoder = Encoder()
    parts = [PREFACE, SettingsFrame(0, settings={4: 1_000_000}).serialize(), WindowUpdateFrame(0, 10_000_000).serialize()]
    for number, stream in enumerate(range(1, 20, 2)):
        block = encoder.encode(request(x_number=str(number % 3)))
        parts.append(HeadersFrame(stream, block, flags=["END_HEADERS"]).serialize())
        data = message(b"a" * number * 100) + message(b"b") + message(b"c" * 500)
        middle = 7 * number
        parts.append(DataFrame(stream, data[:middle], flags=["PADDED"], pad_length=number).serialize())
        parts.append(PingFrame(0, b"%8d" % number).serialize())
        parts.append(DataFrame(stream, data[middle:], flags=["END_STREAM"] if number % 3 else []).serialize())
        if number % 3 == 0:
            last = message(b"finish") if number % 2 else b""
            parts.append(DataFrame(stream, last, flags=["END_STREAM"]).serialize())
        parts.append(PriorityFrame(stream + 100, depends_on=1).serialize())
    parts.append(SettingsFrame(0, flags=["ACK"]).serialize())
    return b"".join(parts)


def outcome(chunks: list[bytes]) -> tuple[object, ...]:
    calls = Calls()
    connection = Connection({ECHO.encode(): calls}, LIMITS, 0.0)
    out = b""
    for chunk in chunks:
        connection.receive(chunk, 0.0)
        while data := connection.take():
            out += data
    bodies: dict[int, bytes] = {}
    others: dict[int, list[object]] = {}
    for frame in frames_of(out):
        if isinstance(frame, DataFrame):
            bodies[frame.stream_id] = bodies.get(frame.stream_id, b"") + frame.data
        elif isinstance(frame, HeadersFrame):
            others.setdefault(frame.stream_id, []).append(frame.data)
        elif isinstance(frame, RstStreamFrame):
            others.setdefault(frame.stream_id, []).append(frame.error_code)
        elif isinstance(frame, PingFrame):
            others.setdefault(0, []).append(frame.opaque_data)
    received = [call.received for call in calls.made]
    ends = [call.ends for call in calls.made]
    # Which stream is written first depends on the reads, and with it which block begins with the table size.
    tidy = {k: [b.removeprefix(b" ") if isinstance(b, bytes) else b for b in v if b != 0] for k, v in others.items()}
    return received, ends, bodies, tidy, connection.open_streams, connection.closing


VALID = client_bytes()
WHOLE = outcome([VALID])


def test_the_valid_conversation() -> None:
    received, ends, _, _, open_streams, closing = WHOLE
    assert isinstance(received, list) and len(received) == 10
    assert isinstance(ends, list) and all(len(e) == 1 for e in ends)
    assert (open_streams, closing) == (0, False)


@given(st.lists(st.integers(1, len(VALID) - 1), max_size=30))
@settings(max_examples=150, deadline=None)
def test_reads_may_be_cut_anywhere(cuts: list[int]) -> None:
    edges = [0, *sorted(set(cuts)), len(VALID)]
    assert outcome([VALID[a:b] for a, b in itertools.pairwise(edges)]) == WHOLE


def test_byte_by_byte() -> None:
    assert outcome([VALID[i : i + 1] for i in range(len(VALID))]) == WHOLE


frame_bytes = st.builds(
    lambda kind, flags, stream, payload: len(payload).to_bytes(3, "big") + bytes((kind, flags)) + stream.to_bytes(4, "big") + payload,
    st.integers(0, 12),
    st.sampled_from([0, 1, 4, 5, 8, 0x20, 0x2D, 0xFF]),
    st.sampled_from([0, 1, 1, 3, 5, 7, 2, 99, 2**31 - 1, 2**32 - 1]),
    st.one_of(st.binary(max_size=60), st.sampled_from([b"", b"\0" * 4, b"\xff" * 4, b"\0" * 8, message(b"hi"), message(b"boom")])),
)


def survive(chunks: list[bytes]) -> None:
    calls = Calls()
    connection = Connection({ECHO.encode(): calls}, LIMITS, 0.0)
    now_s = 0.0
    for chunk in chunks:
        now_s += 0.05
        connection.receive(chunk, now_s)
        for _ in range(1000):
            if not connection.take():
                break
        connection.tick(now_s)
        held = sum(s.memory_bytes for s in connection.streams.values()) + len(connection._buffer) + len(connection.openings.block or b"")
        assert held <= LIMITS.connection_bytes + len(chunk) + 70_000
    connection.lost()
    assert all(len(call.ends) == 1 for call in calls.made)
    assert connection.open_streams == 0


@given(st.lists(frame_bytes, max_size=40))
@settings(max_examples=400, deadline=None)
def test_random_frames_do_no_harm(frames: list[bytes]) -> None:
    start = PREFACE + SettingsFrame(0).serialize() + HeadersFrame(1, Encoder().encode(request()), flags=["END_HEADERS"]).serialize()
    survive([start, *frames])


@given(st.integers(0, 2**32), st.integers(1, 30))
@settings(max_examples=400, deadline=None)
def test_mutated_conversations_do_no_harm(seed: int, count: int) -> None:
    chance = random.Random(seed)
    data = bytearray(VALID)
    for _ in range(count):
        at = chance.randrange(len(PREFACE), len(data))
        kind = chance.randrange(4)
        if kind == 0:
            data[at] = chance.randrange(256)
        elif kind == 1:
            del data[at : at + chance.randrange(20)]
        elif kind == 2:
            data[at:at] = chance.randbytes(chance.randrange(20))
        else:
            other = chance.randrange(len(data))
            data[at:at] = data[other : other + chance.randrange(200)]
    pieces = [bytes(data[i : i + 997]) for i in range(0, len(data), 997)]
    survive(pieces)
