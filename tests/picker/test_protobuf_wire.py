"""The wire format by hand and against generated code."""

from __future__ import annotations

import struct
from collections.abc import Sequence

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


NUMBERS = st.one_of(st.integers(0, 127), st.integers(0, 2**21 - 1), st.integers(0, 2**32 - 1), st.integers(0, 2**64 - 1))
CHUNK_BYTES = 16 * 1024
"""Of `packed_uint32`; numbers at its edges must not be cut."""


def words(values: Sequence[int]) -> bytes:
    return struct.pack(f"<{len(values)}I", *[value & 0xFFFF_FFFF for value in values])


def one_by_one(data: bytes) -> bytes | None:
    """What `packed_uint32` has to answer, by the definition of a varint; None: these are no numbers."""
    values: list[int] = []
    value = shift = 0
    for byte in data:
        value |= (byte & 0x7F) << shift
        shift += 7
        if byte < 0x80:
            values.append(value)
            value = shift = 0
        elif shift == 70:
            return None
    return None if shift else words(values)


@given(st.lists(NUMBERS))
def test_packed_numbers(values: list[int]) -> None:
    data = b"".join(map(varint, values))
    assert packed_uint32(data) == words(values)
    assert packed_count(data) == len(values)
    assert list(fields(packed(9, values))) == [(9, data)]


@pytest.mark.parametrize("value", [0, 127, 128, 2**14 - 1, 2**14, 2**21 - 1, 2**21, 2**28 - 1, 2**28, 2**32 - 1, 2**32, 2**64 - 1])
@pytest.mark.parametrize("before", [0, 1, CHUNK_BYTES - 9, CHUNK_BYTES - 4, CHUNK_BYTES - 1, CHUNK_BYTES])
def test_a_packed_number_at_any_place(value: int, before: int) -> None:
    """Before it numbers of one byte, behind it one of two."""
    values = [*(i % 128 for i in range(before)), value, 300]
    assert packed_uint32(b"".join(map(varint, values))) == words(values)


def test_many_packed_numbers() -> None:
    values = [i * 48_271 % 2 ** (i % 33) for i in range(50_000)]
    assert packed_uint32(b"".join(map(varint, values))) == words(values)


def test_a_number_may_be_longer_than_it_has_to_be() -> None:
    assert packed_uint32(b"\x85\x80\x80\x80\x80\x80\x80\x80\x80\x00\x07") == words([5, 7])


@pytest.mark.parametrize("before", [0, 1, CHUNK_BYTES - 10, CHUNK_BYTES - 5, CHUNK_BYTES - 1, CHUNK_BYTES])
@pytest.mark.parametrize(
    ("data", "why"),
    [
        (b"\x80", "cut off"),
        (b"\xff" * 9, "cut off"),
        (b"\x80" * 10, "longer"),
        (b"\xff" * 11, "longer"),
        (b"\x80" * 10 + b"\x01", "longer"),
    ],
)
def test_what_is_no_packed_number(data: bytes, why: str, before: int) -> None:
    with pytest.raises(WireError, match=why):
        packed_uint32(b"\x01" * before + data)


@given(st.binary(max_size=64))
def test_packed_numbers_by_the_definition(data: bytes) -> None:
    expected = one_by_one(data)
    if expected is None:
        with pytest.raises(WireError):
            packed_uint32(data)
    else:
        assert packed_uint32(data) == expected


@given(st.binary(max_size=64))
def test_any_bytes(data: bytes) -> None:
    try:
        for _, value in fields(data):
            assert isinstance(value, int | bytes)
    except WireError:
        pass
    try:
        assert len(packed_uint32(data)) == 4 * packed_count(data)
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
