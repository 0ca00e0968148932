"""How a connection ends: drained, unacknowledged, idle, silent."""

from __future__ import annotations

import struct

from hyperframe.frame import DataFrame, GoAwayFrame, HeadersFrame, PingFrame, SettingsFrame

from picker.extproc.h2.limits import Limits
from picker.extproc.h2.status import Status
from tests.picker.extproc.h2.peer import PREFACE, Pair, message
from tests.picker.extproc.h2.test_connection import block, frames_of


def test_drain() -> None:
    pair = Pair()
    stream = pair.open(b"x")
    pair.server.drain(pair.now_s)
    frames = frames_of(pair.server.take())
    assert [type(f).__name__ for f in frames] == ["GoAwayFrame", "PingFrame"]
    assert isinstance(frames[0], GoAwayFrame) and frames[0].last_stream_id == 2**31 - 1
    # A stream that was on its way is served; after the final GOAWAY none is.
    late = stream + 2
    pair.raw(
        HeadersFrame(late, block(), flags=["END_HEADERS"]).serialize() + DataFrame(late, message(b"late"), flags=["END_STREAM"]).serialize()
    )
    assert pair.calls.made[1].received == [b"late"]
    (final,) = frames_of(pair.raw(PingFrame(0, b"fairlead", flags=["ACK"]).serialize()))
    assert isinstance(final, GoAwayFrame) and final.last_stream_id == late
    assert pair.raw(HeadersFrame(late + 2, block(), flags=["END_HEADERS"]).serialize() + DataFrame(late + 2, b"x").serialize()) == b""
    assert len(pair.calls.made) == 2 and not pair.server.closing
    pair.raw(DataFrame(stream, b"", flags=["END_STREAM"]).serialize())
    assert pair.server.closing
    assert pair.calls.ends == [[Status.OK], [Status.OK]]


def test_drain_of_a_client_that_does_not_answer_pings() -> None:
    pair = Pair()
    pair.server.drain(pair.now_s)
    pair.server.tick(pair.now_s + 0.5)
    assert not pair.server.closing
    pair.server.tick(pair.now_s + 1.0)
    assert pair.server.closing


def test_a_client_that_never_acknowledges() -> None:
    from picker.extproc.h2.connection import Connection

    connection = Connection({}, Limits(), 0.0)
    connection.receive(PREFACE + SettingsFrame(0).serialize(), 0.1)
    for tenth in range(1, 99):
        connection.tick(tenth / 10)
    assert not connection.closing
    connection.tick(11.0)
    assert connection.closing
    last = frames_of(connection.take())[-1]
    assert isinstance(last, GoAwayFrame) and last.error_code == 4


def test_idle_connections_are_closed_and_silent_ones_asked() -> None:
    pair = Pair(Limits(idle_s=100, keepalive_s=30, keepalive_timeout_s=10))
    pair.pass_time(95)
    assert not pair.server.closing
    assert len([e for e in pair.events if type(e).__name__ == "PingReceived"]) == 3
    pair.pass_time(10)
    assert pair.goaway is not None and pair.server.closing

    silent = Pair(Limits(keepalive_s=30, keepalive_timeout_s=10))
    silent.open(b"x")
    for _ in range(45):
        silent.now_s += 1
        silent.server.tick(silent.now_s)
    assert silent.server.closing
    assert silent.calls.ends == [[Status.CANCELLED]]


def test_the_window_of_the_whole_connection_is_announced() -> None:
    pair = Pair()
    assert pair.client.outbound_flow_control_window == 16 << 20
    assert pair.client.remote_settings.max_concurrent_streams == 4096


def test_unknown_frames_are_ignored() -> None:
    pair = Pair()
    assert pair.raw(struct.pack(">HBBBI", 0, 3, 0xEE, 0xFF, 7) + b"abc") == b""
