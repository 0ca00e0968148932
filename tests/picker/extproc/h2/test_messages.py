"""Length-prefixed messages, cut anywhere, compressed or not."""

from __future__ import annotations

import gzip
import zlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from picker.extproc.h2.grpc_messages import MessageReader, timeout_s
from picker.extproc.h2.responses import percent_encoded
from picker.extproc.h2.status import Status, StatusError
from tests.picker.extproc.h2.peer import message


@given(st.lists(st.binary(max_size=40)), st.lists(st.integers(1, 30)))
def test_messages_come_out_whole_however_the_bytes_are_cut(messages: list[bytes], cuts: list[int]) -> None:
    data = b"".join(map(message, messages))
    reader = MessageReader(b"identity", 100)
    found: list[bytes] = []
    at = 0
    for size in [*cuts, len(data)]:
        framed = b"??" + data[at : at + size] + b"?"
        found += reader.feed(framed, 2, len(framed) - 1)
        at += size
    assert found == messages
    assert reader.held_bytes == 0


@pytest.mark.parametrize(("encoding", "pack"), [(b"gzip", gzip.compress), (b"deflate", zlib.compress)])
def test_compressed_and_plain_messages_may_alternate(encoding: bytes, pack: object) -> None:
    assert callable(pack)
    data = message(pack(b"one"), 1) + message(b"two") + message(pack(b"three"), 1)
    for cut in range(1, len(data)):
        reader = MessageReader(encoding, 100)
        assert [*reader.feed(data, 0, cut), *reader.feed(data, cut, len(data))] == [b"one", b"two", b"three"]


@pytest.mark.parametrize(
    ("data", "encoding", "status"),
    [
        (message(b"x" * 101), b"identity", Status.RESOURCE_EXHAUSTED),
        (message(b"x" * 101)[:5], b"identity", Status.RESOURCE_EXHAUSTED),
        (message(gzip.compress(b"x" * 101), 1), b"gzip", Status.RESOURCE_EXHAUSTED),
        (message(gzip.compress(b"x" * 100_000_000, 1)[:99], 1), b"gzip", Status.RESOURCE_EXHAUSTED),
        (message(b"no gzip", 1), b"gzip", Status.INTERNAL),
        (message(gzip.compress(b"cut")[:-3], 1), b"gzip", Status.INTERNAL),
        (message(gzip.compress(b"more") + b"!", 1), b"gzip", Status.INTERNAL),
        (message(b"x", 1), b"identity", Status.INTERNAL),
        (message(b"x", 2), b"gzip", Status.INTERNAL),
    ],
)
def test_what_cannot_be_read_has_a_status(data: bytes, encoding: bytes, status: Status) -> None:
    with pytest.raises(StatusError) as error:
        MessageReader(encoding, 100).feed(data, 0, len(data))
    assert error.value.status is status


def test_timeouts() -> None:
    assert timeout_s(b"1H") == 3600
    assert timeout_s(b"250m") == 0.25
    assert timeout_s(b"99999999n") == pytest.approx(0.099999999)
    for wrong in (b"", b"1", b"S", b"123456789S", b"1s", b"-1S", b"1.5S"):
        assert timeout_s(wrong) is None


def test_status_texts_are_percent_encoded() -> None:
    assert percent_encoded("100% für\n") == b"100%25 f%C3%BCr%0A"
    assert len(percent_encoded("x" * 5000)) == 1000
