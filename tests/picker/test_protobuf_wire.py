"""The wire format by hand and against generated code."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from picker.extproc.pb import ext_proc_pb2 as pb
from picker.protobuf_wire import WireError, fields, message, number, packed_count, packed_uint32, text
from tests.support.vllm_grpc import field, packed, varint


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (b"", []),
        (b"\x08\x96\x01", [(1, 150)]),
        (b"\x12\x07testing", [(2, b"testing")]),
        (b"\x0d\x01\x02\x03\x04", [(1, b"\x01\x02\x03\x04")]),
        (b"\x09" + b"\x07" * 8, [(1, b"\x07" * 8)]),
        (b"\x0b\x08\x01\x0b\x0c\x0c\x10\x05", [(2, 5)]),
        (b"\x08" + b"\xff" * 9 + b"\x01", [(1, 2**64 - 1)]),
        (varint((2**29 - 1) << 3) + b"\x01", [(2**29 - 1, 1)]),
    ],
)
def test_fields(data: bytes, expected: list[tuple[int, int | bytes]]) -> None:
    assert list(fields(data)) == expected


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (b"\x08", "cut off"),
        (b"\x08\x80", "cut off"),
        (b"\x08" + b"\x80" * 10 + b"\x01", "longer than 10 bytes"),
        (b"\x12\x05abcd", "longer than its message"),
        (b"\x0d\x01", "longer than its message"),
        (b"\x00\x01", "no field number"),
        (b"\x0e", "no wire type"),
        (b"\x0c", "has not begun"),
        (b"\x0b", "does not end"),
        (b"\x0b" * 101, "nested too deeply"),
    ],
)
def test_what_is_no_message(data: bytes, why: str) -> None:
    with pytest.raises(WireError, match=why):
        list(fields(data))


@given(st.lists(st.integers(0, 2**32 - 1)))
def test_packed_numbers(values: list[int]) -> None:
    data = b"".join(map(varint, values))
    assert packed_uint32(data) == values
    assert packed_count(data) == len(values)
    assert list(fields(packed(9, values))) == [(9, data)]


@pytest.mark.parametrize(("data", "why"), [(b"\x80", "cut off"), (b"\x80" * 10 + b"\x01", "longer")])
def test_what_is_no_packed_number(data: bytes, why: str) -> None:
    with pytest.raises(WireError, match=why):
        packed_uint32(data)


def test_a_number_of_64_bits_is_cut_to_32() -> None:
    assert packed_uint32(varint(2**40 + 7)) == [7]


@given(st.binary(max_size=64))
def test_any_bytes(data: bytes) -> None:
    try:
        for _, value in fields(data):
            assert isinstance(value, int | bytes)
    except WireError:
        pass
    try:
        assert len(packed_uint32(data)) == packed_count(data)
    except WireError:
        pass


@given(st.binary(max_size=300), st.booleans())
def test_what_generated_code_writes(body: bytes, end: bool) -> None:
    written = pb.HttpBody(body=body, end_of_stream=end).SerializeToString()
    found = dict(fields(written))
    assert message(found.get(1, b""), "body") == body
    assert bool(number(found.get(2, 0), "end_of_stream")) == end


def test_a_field_of_another_type() -> None:
    with pytest.raises(WireError, match="text is a number"):
        text(1, "text")
    with pytest.raises(WireError, match="stream is not a number"):
        number(b"", "stream")
    with pytest.raises(WireError, match="text is not UTF-8"):
        text(b"\xff", "text")
    assert list(fields(field(1, "é"))) == [(1, "é".encode())]
