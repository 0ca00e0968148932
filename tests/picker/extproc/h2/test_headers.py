"""Header blocks: what may be remembered, and what a request must look like."""

from __future__ import annotations

import pytest
from hpack import Decoder, Encoder

from picker.extproc.h2 import responses
from picker.extproc.h2.errors import ConnectionFault, ErrorCode
from picker.extproc.h2.headers import BlockDecoder, literal, parse
from picker.extproc.h2.status import Status

BASE = [(b":method", b"POST"), (b":scheme", b"http"), (b":path", b"/a/b"), (b"te", b"trailers"), (b"content-type", b"application/grpc")]


def test_a_block_is_remembered_until_the_table_changes() -> None:
    encoder, decoder = Encoder(), BlockDecoder(4096, 65_536)
    first = encoder.encode(BASE)
    assert decoder.request(first).path == b"/a/b"
    again = encoder.encode(BASE)
    assert again != first
    head = decoder.request(again)
    assert decoder.request(again) is head
    # A new entry moves all indices of the dynamic table by one: the same bytes mean something else now.
    assert decoder.request(encoder.encode([*BASE, (b"x-new", b"1")])).malformed is None
    assert decoder.request(again) is not head
    moved = encoder.encode(BASE)
    assert moved != again
    assert decoder.request(moved) == head


def test_a_block_that_changes_the_table_is_decoded_each_time() -> None:
    encoder, decoder = Encoder(), BlockDecoder(4096, 65_536)
    adds = literal(BASE[:3]) + b"\x40\x01a\x01b"
    assert decoder.request(adds) is not decoder.request(adds)
    encoder.encode([(b"a", b"b")])
    encoder.encode([(b"a", b"b")])
    assert len(decoder._table.dynamic_entries) == 2


@pytest.mark.parametrize("block", [literal([*BASE, (b"x", b"y" * 3_000)]), literal(BASE) + b"\xbe" * 60], ids=["block", "list"])
def test_large_blocks_are_not_remembered(block: bytes) -> None:
    decoder = BlockDecoder(4096, 65_536)
    decoder.request(b"\x40\x01a\x7f\x80\x01" + b"v" * 255)
    assert decoder.request(block).path == b"/a/b"
    assert not decoder._heads


@pytest.mark.parametrize(
    ("updates", "good"),
    [(b"\x20", True), (b"\x20\x3f\xe1\x1f", True), (b"\x20\x20\x20", False), (b"\x3f\xe1\x1f" * 3, False), (b"\x20" * 60_000, False)],
)
def test_a_block_may_begin_with_two_size_updates(updates: bytes, good: bool) -> None:
    decoder = BlockDecoder(4096, 65_536)
    if good:
        assert decoder.request(updates + literal(BASE)).path == b"/a/b"
        return
    with pytest.raises(ConnectionFault, match="size updates") as fault:
        decoder.request(updates + literal(BASE))
    assert fault.value.code is ErrorCode.COMPRESSION_ERROR


@pytest.mark.parametrize("block", [b"\x3f", b"\x3f\xff", b"\x20\x3f\x80", b"\x3f" + b"\xff" * 30])
def test_size_updates_cut_short(block: bytes) -> None:
    with pytest.raises(ConnectionFault, match="cannot be decoded"):
        BlockDecoder(4096, 65_536).request(block)


def test_trailers_that_change_the_table_forget_too() -> None:
    encoder, decoder = Encoder(), BlockDecoder(4096, 65_536)
    decoder.request(encoder.encode(BASE))
    again = encoder.encode(BASE)
    head = decoder.request(again)
    assert decoder.trailers(encoder.encode([(b"x-checksum", b"1")])) is None
    assert decoder.request(encoder.encode(BASE)) == head
    assert again not in decoder._heads


def test_a_block_for_a_stream_of_the_past_forgets_too() -> None:
    """It is decoded for its effect on the table only."""
    encoder, decoder = Encoder(), BlockDecoder(4096, 65_536)
    decoder.request(encoder.encode(BASE))
    again = encoder.encode(BASE)
    head = decoder.request(again)
    decoder.fields(encoder.encode([(b":path", b"/another")]))
    assert again not in decoder._heads
    assert decoder.request(encoder.encode(BASE)) == head


def test_a_resized_table_forgets() -> None:
    decoder = BlockDecoder(4096, 65_536)
    block = literal(BASE)
    head = decoder.request(block)
    assert decoder.request(block) is head
    decoder.request(b"\x20" + block)
    assert decoder.request(block) is not head


@pytest.mark.parametrize("block", [b"\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff", b"\x80", b"\xc6", b"\x40\x05ab", b"\x3f\xe2\x1f"])
def test_a_block_that_cannot_be_decoded_ends_the_connection(block: bytes) -> None:
    with pytest.raises(ConnectionFault) as fault:
        BlockDecoder(4096, 65_536).request(block)
    assert fault.value.code is ErrorCode.COMPRESSION_ERROR


def test_a_header_bomb_ends_the_connection() -> None:
    bomb = b"\x40\x01a" + b"\x7f\x9e\x1d" + b"x" * 3869 + b"\xbe" * 1000
    with pytest.raises(ConnectionFault) as fault:
        BlockDecoder(4096, 65_536).request(bomb)
    assert fault.value.code is ErrorCode.ENHANCE_YOUR_CALM


@pytest.mark.parametrize(
    "fields",
    [
        BASE[1:], BASE[:1] + BASE[2:], BASE[:2] + BASE[3:], [*BASE, BASE[0]], [BASE[0], *BASE],
        [*BASE[:2], (b":path", b""), *BASE[3:]], [*BASE[:3], (b":status", b"200")], [*BASE[:3], (b":new", b"x")],
        [*BASE, (b"X-Upper", b"1")], [*BASE, (b"", b"1")], [*BASE, (b"a b", b"1")],
        [*BASE, (b"a", b"1\n2")], [*BASE, (b"a", b"\x00")], [*BASE, (b"a", b" 1")],
        [*BASE, (b"connection", b"close")], [*BASE, (b"transfer-encoding", b"chunked")], [*BASE, (b"te", b"gzip")],
        [*BASE, (b"content-length", b"x")], [*BASE, (b"content-length", b"1"), (b"content-length", b"2")],
    ],
)  # fmt: skip
def test_malformed_requests(fields: list[tuple[bytes, bytes]]) -> None:
    assert parse(fields).malformed


def test_answers_can_be_read_by_another_implementation() -> None:
    decoder = Decoder()
    decoder.max_allowed_table_size = 0
    assert decoder.decode(responses.TABLE_SIZE_0 + responses.HEAD) == [(":status", "200"), ("content-type", "application/grpc")]
    assert decoder.decode(responses.trailers(Status.UNIMPLEMENTED, "ü" * 200, accept_encoding=True)) == [
        ("grpc-status", "12"), ("grpc-message", "%C3%BC" * 200), ("grpc-accept-encoding", "identity,gzip,deflate"),
    ]  # fmt: skip
