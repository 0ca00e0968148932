"""Calls over the sans-IO connection, seen by the `h2` library as the client."""

from __future__ import annotations

import gzip

import h2.errors
import h2.settings
import pytest
from hyperframe.frame import DataFrame, Frame, GoAwayFrame, HeadersFrame, PingFrame, RstStreamFrame, SettingsFrame, WindowUpdateFrame

from picker.extproc.h2.headers import literal
from picker.extproc.h2.limits import Limits
from picker.extproc.h2.status import Status
from tests.picker.extproc.h2.peer import PREFACE, Pair, message, request


def frames_of(data: bytes) -> list[Frame]:
    found, at = [], 0
    while at < len(data):
        frame, length = Frame.parse_frame_header(memoryview(data[at : at + 9]))
        frame.parse_body(memoryview(data[at + 9 : at + 9 + length]))
        found.append(frame)
        at += 9 + length
    return found


def block() -> bytes:
    return literal([(name.encode(), value.encode()) for name, value in request()])


def test_a_call() -> None:
    pair = Pair()
    stream = pair.open(b"one", b"two")
    assert pair.answers[stream].messages == [b"one", b"two"]
    pair.say(stream, b"three", end=True)
    answer = pair.answers[stream]
    assert answer.headers == {":status": "200", "content-type": "application/grpc"}
    assert answer.messages == [b"one", b"two", b"three"]
    assert (answer.status, answer.ended, answer.reset) == (0, True, None)
    assert pair.calls.ends == [[Status.OK]]
    assert pair.server.open_streams == 0


def test_what_one_read_brings_is_answered_in_one_write_and_one_data_frame_per_stream() -> None:
    pair = Pair()
    data = b""
    for stream in (1, 3, 5):
        data += HeadersFrame(stream, block(), flags=["END_HEADERS"]).serialize()
        data += DataFrame(stream, message(b"a")).serialize() + DataFrame(stream, message(b"b")).serialize()
    data += PingFrame(0, b"12345678").serialize()
    pair.server.receive(data, pair.now_s)
    frames = frames_of(pair.server.take())
    assert not pair.server.backlogged
    assert [type(f).__name__ for f in frames] == ["PingFrame", *["HeadersFrame", "DataFrame"] * 3]
    assert [f.data for f in frames if isinstance(f, DataFrame)] == [message(b"a") + message(b"b")] * 3


def test_golden_bytes_of_a_whole_stream() -> None:
    pair = Pair()
    data = HeadersFrame(1, block(), flags=["END_HEADERS"]).serialize()
    data += DataFrame(1, message(b"hi"), flags=["END_STREAM"]).serialize()
    head = b"\x88\x00\x0ccontent-type\x10application/grpc"
    assert pair.raw(data) == b"".join([
        b"\x00\x00\x21\x01\x04\x00\x00\x00\x01", b"\x20", head,
        b"\x00\x00\x07\x00\x00\x00\x00\x00\x01\x00\x00\x00\x00\x02hi",
        b"\x00\x00\x0f\x01\x05\x00\x00\x00\x01\x00\x0bgrpc-status\x010",
    ])  # fmt: skip


@pytest.mark.parametrize(
    ("text", "status", "detail"), [(b"fail", 3, "ung%C3%BCltig 100%25"), (b"boom", 13, "internal error"), (b"finish", 0, None)]
)
def test_a_call_ends_before_its_client_does(text: bytes, status: int, detail: str | None) -> None:
    pair = Pair()
    stream = pair.open(b"before", text, b"after")
    answer = pair.answers[stream]
    assert answer.status == status
    assert answer.trailers.get("grpc-message") == detail
    assert answer.messages == [b"before", b"finish"] if status == 0 else [b"before"]
    assert answer.reset == h2.errors.ErrorCodes.NO_ERROR
    assert pair.calls.made[0].received == [b"before", text]
    assert pair.calls.ends == [[Status(status)]]
    # What was under way is no error; the connection goes on.
    assert pair.raw(DataFrame(stream, message(b"late")).serialize()) == b""
    assert pair.answers[pair.open(b"x", end=True)].status == 0


@pytest.mark.parametrize(
    ("headers", "status", "part"),
    [
        (request("/other/Method"), 12, "unknown method /other/Method"),
        (request(grpc_encoding="snappy"), 12, "snappy"),
        (request(grpc_timeout="1x"), 13, "grpc-timeout"),
        (request(grpc_timeout="0S"), 4, "deadline"),
        (request(x_large="x" * 33_000), 8, "limit of 32768"),
    ],
)
def test_calls_refused_by_their_headers_get_trailers_only(headers: list[tuple[str, str]], status: int, part: str) -> None:
    pair = Pair()
    answer = pair.answers[pair.open(headers=headers)]
    assert answer.status == status
    assert part in answer.headers["grpc-message"]
    assert (answer.headers[":status"], answer.body, answer.trailers) == ("200", b"", {})
    if "snappy" in part:
        assert answer.headers["grpc-accept-encoding"] == "identity,gzip,deflate"


@pytest.mark.parametrize("kind", ["text/plain", "application/grpc-web", ""])
def test_what_is_not_grpc_gets_415(kind: str) -> None:
    pair = Pair()
    answer = pair.answers[pair.open(headers=request(content_type=kind), end=True)]
    assert answer.headers[":status"] == "415"
    assert b"application/grpc" in answer.body
    assert answer.ended and pair.server.open_streams == 0


def test_a_refused_http_request_may_finish_its_body_but_not_for_ever() -> None:
    pair = Pair()
    one, two = pair.open(headers=request(content_type="x/y")), pair.open(headers=request(content_type="x/y"))
    pair.send(one, b"body", end=True)
    pair.pump()
    assert pair.answers[one].reset is None
    assert pair.server.open_streams == 1
    pair.pass_time(6)
    assert pair.answers[two].reset == 0
    assert pair.server.open_streams == 0


@pytest.mark.parametrize("kind", ["application/grpc+proto", "application/grpc;charset=x"])
def test_variants_of_the_content_type(kind: str) -> None:
    pair = Pair()
    assert pair.answers[pair.open(b"x", end=True, headers=request(content_type=kind))].status == 0


def test_gzip_messages() -> None:
    pair = Pair()
    stream = pair.open(headers=request(grpc_encoding="gzip"))
    pair.send(stream, message(gzip.compress(b"packed"), 1) + message(b"plain"), end=True)
    pair.pump()
    assert pair.answers[stream].messages == [b"packed", b"plain"]


def test_a_stream_that_ends_inside_a_message() -> None:
    pair = Pair()
    stream = pair.open()
    pair.send(stream, message(b"whole") + message(b"cut")[:-1], end=True)
    pair.pump()
    assert pair.answers[stream].messages == [b"whole"]
    assert pair.answers[stream].status == 13


def test_messages_beyond_the_limits() -> None:
    pair = Pair(Limits(max_message_bytes=1000, max_reply_bytes=2000))
    assert pair.answers[pair.open(b"x" * 1001)].status == 8
    assert pair.answers[pair.open(b"make 2001")].status == 8
    assert pair.answers[pair.open(b"make 2000", end=True)].status == 0


def test_a_deadline() -> None:
    pair = Pair()
    stream = pair.open(b"x", headers=request(grpc_timeout="500m"))
    in_time = pair.open(b"x", headers=request(grpc_timeout="500m"), end=True)
    pair.pass_time(0.4)
    assert not pair.answers[stream].ended
    pair.pass_time(0.3)
    assert pair.answers[stream].status == 4
    assert pair.calls.ends == [[Status.DEADLINE_EXCEEDED], [Status.OK]]
    assert pair.answers[in_time].status == 0
    assert len(pair.server.lifetime.deadlines) == 0


def test_a_client_resets_in_any_state() -> None:
    pair = Pair()
    streams = [pair.open(), pair.open(b"x"), pair.open(b"x", headers=request(grpc_timeout="1S"))]
    half = pair.open()
    pair.send(half, message(b"xyz")[:6])
    pair.pump()
    for stream in [*streams, half]:
        pair.client.reset_stream(stream)
        pair.pump()
    assert pair.calls.ends == [[Status.CANCELLED]] * 4
    assert pair.server.open_streams == 0
    pair.pass_time(2)
    pair.server.lost()
    assert pair.calls.ends == [[Status.CANCELLED]] * 4


def test_a_reset_in_the_same_read_as_the_end_sends_nothing() -> None:
    """What Envoy does when it is done with a stream."""
    pair = Pair()
    stream = pair.open(b"x")
    data = DataFrame(stream, b"", flags=["END_STREAM"]).serialize() + RstStreamFrame(stream, 0).serialize()
    assert pair.raw(data) == b""
    assert pair.calls.ends == [[Status.OK]]


def test_a_lost_connection_ends_each_call_once() -> None:
    pair = Pair()
    pair.open(b"x")
    pair.open(b"x", end=True)
    pair.server.lost()
    pair.server.lost()
    assert pair.calls.ends == [[Status.CANCELLED], [Status.OK]]


def test_answers_that_come_later() -> None:
    pair = Pair()
    stream = pair.open(b"x")
    call = pair.calls.made[0]
    assert pair.woken == 0
    call.responder.send(b"later")
    assert pair.woken == 1
    pair.pump()
    assert pair.answers[stream].messages == [b"x", b"later"]
    call.responder.finish(Status.UNAVAILABLE, "enough")
    call.responder.finish(Status.OK)
    call.responder.send(b"too late")
    pair.pump()
    assert (pair.answers[stream].status, pair.answers[stream].messages) == (14, [b"x", b"later"])
    assert call.ends == [Status.UNAVAILABLE]


def test_header_blocks_in_pieces_with_padding_and_priority() -> None:
    pair = Pair()
    whole = block()
    data = HeadersFrame(1, whole[:10], flags=["PADDED", "PRIORITY"], pad_length=7, depends_on=3, stream_weight=5).serialize()
    from hyperframe.frame import ContinuationFrame

    data += ContinuationFrame(1, whole[10:30]).serialize() + ContinuationFrame(1, whole[30:], flags=["END_HEADERS"]).serialize()
    data += DataFrame(1, message(b"padded"), flags=["PADDED", "END_STREAM"], pad_length=200).serialize()
    frames = frames_of(pair.raw(data))
    assert pair.calls.made[0].received == [b"padded"]
    assert [type(f).__name__ for f in frames] == ["HeadersFrame", "DataFrame", "HeadersFrame"]


@pytest.mark.parametrize(
    ("data", "code"),
    [
        (b"GET / HTTP/1.1\r\nHost: x\r\n\r\n", 1),
        (PREFACE + PingFrame(0, b"12345678").serialize(), 1),
        (PREFACE + SettingsFrame(0, flags=["ACK"]).serialize(), 1),
    ],
)
def test_a_connection_that_begins_wrongly(data: bytes, code: int) -> None:
    from picker.extproc.h2.connection import Connection

    for size in (1, 7, len(data)):
        connection = Connection({}, Limits(), 0.0)
        for at in range(0, len(data), size):
            connection.receive(data[at : at + size], 0.0)
        last = frames_of(connection.take())[-1]
        assert isinstance(last, GoAwayFrame) and last.error_code == code
        assert connection.closing


@pytest.mark.parametrize("stream", [5, 2], ids=["not open yet", "nobody's"])
@pytest.mark.parametrize(("payload", "code"), [(b"\0\0\0", 6), (None, 1)], ids=["length", "depends on itself"])
def test_a_fault_on_an_idle_stream_ends_the_connection(stream: int, payload: bytes | None, code: int) -> None:
    """A stream that is not there cannot be reset: clients take that for an error of ours."""
    pair = Pair()
    pair.open(b"x")
    body = stream.to_bytes(4, "big") + b"\0" if payload is None else payload
    frames = frames_of(pair.raw(len(body).to_bytes(3, "big") + b"\x02\0" + stream.to_bytes(4, "big") + body))
    assert [type(f).__name__ for f in frames] == ["GoAwayFrame"]
    assert isinstance(frames[0], GoAwayFrame) and frames[0].error_code == code
    assert pair.calls.ends == [[Status.CANCELLED]]


def test_settings_change_the_windows_of_open_streams() -> None:
    pair = Pair(settings={h2.settings.SettingCodes.INITIAL_WINDOW_SIZE: 10}, auto_window=False)
    stream = pair.open(b"0123456789")
    assert len(pair.answers[stream].body) == 10
    # 10 -> 4: the window is -6 now, and must rise above 0 before anything goes.
    pair.raw(SettingsFrame(0, settings={4: 4}).serialize())
    assert pair.server.streams[stream].send_window == -6
    assert pair.raw(WindowUpdateFrame(stream, 6).serialize()) == b""
    assert pair.raw(WindowUpdateFrame(stream, 1).serialize()) == DataFrame(stream, b"5").serialize()
    assert pair.raw(SettingsFrame(0, settings={4: 100}).serialize()) == b"".join([
        SettingsFrame(0, flags=["ACK"]).serialize(), DataFrame(stream, b"6789").serialize(),
    ])  # fmt: skip


def test_the_connection_window_is_shared_frame_by_frame() -> None:
    pair = Pair(auto_window=False)
    streams = [pair.open(b"make 100000") for _ in range(3)]
    got = [len(pair.answers[stream].body) for stream in streams]
    assert sum(got) == 65_535
    assert got[0] == 65_535
    pair.client.increment_flow_control_window(90_000)
    for stream in streams:
        pair.client.increment_flow_control_window(1 << 20, stream)
    pair.pump()
    more = [len(pair.answers[stream].body) - before for stream, before in zip(streams, got, strict=True)]
    assert sum(more) == 90_000
    # The first one has had its share; the two that waited take turns.
    assert more[0] == 0
    assert abs(more[1] - more[2]) <= 16_384
    pair.client.increment_flow_control_window(1 << 20)
    pair.pump()
    assert [len(pair.answers[stream].body) for stream in streams] == [100_005] * 3


def test_windows_are_given_back_when_half_used() -> None:
    pair = Pair()
    stream = pair.open()
    data = message(b"x" * 3_000_000)
    updates: list[tuple[int, int]] = []
    for at in range(0, len(data), 16_000):
        frames = frames_of(pair.raw(DataFrame(stream, data[at : at + 16_000]).serialize()))
        updates += [(f.stream_id, f.window_increment) for f in frames if isinstance(f, WindowUpdateFrame)]
    assert updates == [(stream, 528_000)] * 5


def test_a_peer_that_does_not_take_answers_gets_no_window_back() -> None:
    """Its messages wait unread, within its window; they are handled once the answers have gone."""
    pair = Pair(Limits(stream_outbound_bytes=100_000), auto_window=False)
    stream = pair.open(b"make 200000")
    sent = 0
    while pair.client.local_flow_control_window(stream) > 1_000:
        pair.send(stream, message(b"x" * 900))
        pair.pump()
        sent += 1
    assert len(pair.calls.made[0].received) == 1
    assert pair.server.streams[stream].held is not None
    other = pair.open(b"hello", end=True)
    assert not pair.answers[other].messages, "the connection's window is used up"
    pair.send(stream, b"", end=True)
    for _ in range(50):
        pair.client.increment_flow_control_window(1 << 16)
        if pair.server.open_streams:
            pair.client.increment_flow_control_window(1 << 16, stream)
        pair.pump()
    assert pair.answers[other].messages == [b"hello"]
    assert len(pair.answers[stream].messages) == len(pair.calls.made[0].received) == sent + 1
    assert pair.answers[stream].status == 0


def test_more_data_than_the_window_allows() -> None:
    pair = Pair(Limits(stream_window_bytes=70_000, stream_outbound_bytes=1), auto_window=False)
    stream = pair.open(b"make 100000")
    frames: list[Frame] = []
    for part in [message(b"x" * 1_000_000)[:16_000], *[b"x" * 16_000] * 5]:
        frames += frames_of(pair.raw(DataFrame(stream, part).serialize()))
    assert [(f.stream_id, f.error_code) for f in frames if isinstance(f, RstStreamFrame)] == [(stream, 3)]
    assert pair.calls.ends == [[Status.CANCELLED]]


def test_a_stalled_stream_is_reset() -> None:
    pair = Pair(Limits(stall_s=30), auto_window=False)
    stream = pair.open(b"make 100000")
    quiet = pair.open()
    pair.pass_time(29)
    assert pair.answers[stream].reset is None
    pair.pass_time(3)
    assert pair.answers[stream].reset == 8
    assert pair.calls.ends == [[Status.CANCELLED], []]
    assert quiet in pair.server.streams
