"""What the codec reads and writes by hand, against generated code."""

from __future__ import annotations

import random

import pytest
from google.protobuf.message import DecodeError

from picker.extproc.codec import decode, encode
from picker.extproc.events import Phase, ProtocolError, ResponseBody, StreamedBodyReply
from picker.extproc.pb import ext_proc_pb2 as pb


def _as_generated(data: bytes) -> object:
    try:
        message = pb.ProcessingRequest.FromString(data)
    except DecodeError:
        return None
    if message.WhichOneof("request") != "response_body":
        return None
    return ResponseBody(message.response_body.body, message.response_body.end_of_stream)


def _part(number: int, data: bytes) -> bytes:
    holder = pb.HttpBody(body=data).SerializeToString() or b"\n\0"
    return bytes((number << 3 | 2,)) + holder[1:]


def test_a_response_body_is_read_as_generated_code_reads_it() -> None:
    dice = random.Random(5)
    metadata = pb.ProcessingRequest()
    metadata.metadata_context.filter_metadata["envoy.lb"].fields["a"].string_value = "b"
    ends = (b"\x10\0", b"\x10\1", b"\x10\2", b"\x10\x81\0")

    def body() -> bytes:
        parts = [_part(1, dice.randbytes(dice.choice((0, 1, 127, 128, 300)))) for _ in range(dice.choice((0, 1, 1, 1, 2)))]
        parts += [dice.choice((*ends, b"\x18\1", b"\x1d1234")) for _ in range(dice.choice((0, 1, 1, 2)))]
        return _part(5, b"".join(parts))

    for _ in range(5_000):
        others = (metadata.SerializeToString(), b"\x50\1", _part(11, b"\x08\4"), _part(9, b""), body(), _part(4, b"\x10\1"))
        data = body() + b"".join([dice.choice(others) for _ in range(dice.choice((0, 1, 1, 2)))])
        if dice.random() < 0.5:
            at = dice.randrange(len(data))
            data = dice.choice((data[:at], data[:at] + dice.randbytes(1) + data[at + 1 :], data[:at] + dice.randbytes(1) + data[at:]))
        try:
            found: object = decode(data)
        except ProtocolError:
            found = None
        expected = _as_generated(data)
        # What follows the body is passed over, not read: it may be no protobuf inside.
        assert found == expected or not isinstance(found, ResponseBody) or expected is None, data.hex()
        assert isinstance(found, ResponseBody) or expected is None, data.hex()


def test_endless_lengths_are_refused_at_once() -> None:
    for data in (b"\x2a" + b"\xff" * 2_000_000, b"\x2a\x02\x10\1\x42" + b"\x80" * 2_000_000 + b"\1"):
        with pytest.raises(ProtocolError):
            decode(data)


@pytest.mark.parametrize("phase", Phase)
@pytest.mark.parametrize("end", [False, True])
def test_a_piece_of_a_body_is_written_as_generated_code_writes_it(phase: Phase, end: bool) -> None:
    edges = [size + step for size in (0, 1 << 7, 1 << 14, 1 << 21) for step in range(-16, 17) if size + step >= 0]
    for size in edges:
        message = pb.ProcessingResponse()
        part = message.request_body if phase is Phase.REQUEST else message.response_body
        streamed = part.response.body_mutation.streamed_response
        streamed.body, streamed.end_of_stream = bytes(size), end
        assert encode(StreamedBodyReply(phase, bytes(size), end)) == message.SerializeToString(), size
