"""gRPC's length-prefixed messages, whole and in pieces."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from picker.grpc_frames import MAX_HELD_BYTES, FrameError, FrameReader, framed, is_grpc, only_message
from tests.support.vllm_grpc import frame


@pytest.mark.parametrize(
    ("content_type", "grpc"),
    [
        ("application/grpc", True),
        ("application/grpc+proto", True),
        ("application/grpc; charset=x", True),
        ("application/grpc-web", False),
        ("application/json", False),
        ("", False),
    ],
)
def test_content_types(content_type: str, grpc: bool) -> None:
    assert is_grpc(content_type) is grpc


@pytest.mark.parametrize(
    ("body", "why"),
    [
        (b"", "shorter than the prefix"),
        (b"\0\0\0\0", "shorter than the prefix"),
        (frame(b"abc", 1), "compressed gRPC messages are not supported"),
        (frame(b"abc", 7), "7 is no compressed-flag"),
        (frame(b"abc")[:-1], "of 3 bytes is cut off after 2"),
        (frame(b"abc") + b"\0", "more follows"),
    ],
)
def test_what_is_not_one_message(body: bytes, why: str) -> None:
    with pytest.raises(FrameError, match=why):
        only_message(body)


@given(st.binary(max_size=100))
def test_one_message(message: bytes) -> None:
    assert only_message(framed(message)) == message
    assert framed(message) == frame(message)


def feed(body: bytes, cuts: list[int]) -> tuple[list[bytes], FrameReader]:
    reader = FrameReader()
    out: list[bytes] = []
    edges = [0, *sorted(cut % (len(body) + 1) for cut in cuts), len(body)]
    for start, end in pairwise(edges):
        out += reader.feed(body[start:end])
    return out, reader


@given(st.lists(st.tuples(st.binary(max_size=20), st.sampled_from([0, 0, 0, 1]))), st.lists(st.integers(0, 500)))
def test_any_cut_gives_the_same_messages(messages: list[tuple[bytes, int]], cuts: list[int]) -> None:
    got, reader = feed(b"".join(frame(message, flag) for message, flag in messages), cuts)
    assert got == [message for message, flag in messages if not flag]
    assert reader.unread == sum(flag for _, flag in messages)
    assert not reader.cut_off and not reader.broken


@given(st.binary(max_size=60), st.lists(st.integers(0, 60)))
def test_any_bytes_in_any_cut(body: bytes, cuts: list[int]) -> None:
    got, reader = feed(body, cuts)
    whole, other = feed(body, [])
    assert (got, reader.unread, reader.broken) == (whole, other.unread, other.broken)


@pytest.mark.parametrize("step", [3, 1000, 100_000])
def test_a_long_message_is_stepped_over_without_being_kept(step: int) -> None:
    reader = FrameReader()
    body = frame(b"x" * (MAX_HELD_BYTES + 1)) + frame(b"next")
    out: list[bytes] = []
    for start in range(0, len(body), step):
        out += reader.feed(body[start : start + step])
        assert len(reader._held) <= step + 9
    assert out == [b"next"]
    assert reader.unread == 1


def test_the_longest_message_that_is_kept() -> None:
    got, _ = feed(frame(b"x" * MAX_HELD_BYTES), [2, 7, 70_000])
    assert [len(message) for message in got] == [MAX_HELD_BYTES]


def test_after_what_is_not_grpc_nothing_is_read() -> None:
    reader = FrameReader()
    assert list(reader.feed(frame(b"a") + b"no healthy upstream" + frame(b"b"))) == [b"a"]
    assert reader.broken
    assert list(reader.feed(frame(b"c"))) == []
