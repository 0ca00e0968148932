"""The client's model name in the response, and every other byte untouched."""

from __future__ import annotations

import re
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from picker.accounting.restore import ModelRestorer

DATA = Path(__file__).parents[2] / "data" / "sse"
STREAMS = [path.read_bytes() for path in sorted(DATA.iterdir())]


def restore(target: str, original: str, *chunks: bytes) -> bytes:
    restorer = ModelRestorer(target, original)
    return b"".join([*[restorer.feed(chunk) for chunk in chunks], restorer.finish()])


@pytest.mark.parametrize(
    ("target", "original", "body", "expected"),
    [
        ("t", "orig", b'{"model":"t"}', b'{"model":"orig"}'),
        ("t", "orig", b'{"model": "t", "model":"t"}', b'{"model": "orig", "model":"orig"}'),
        ("t", "orig", b'{"model":  "t","model":"tt","amodel":"t","model":"T"}', b'{"model":  "t","model":"tt","amodel":"t","model":"T"}'),
        ("t", "orig", b'{"text":"\\"model\\":\\"t\\""}', b'{"text":"\\"model\\":\\"t\\""}'),
        ("a.c", "x", b'{"model":"abc"}', b'{"model":"abc"}'),
        ('q"\\', "\u00e9\n", b'{"model":"q\\"\\\\"}', '{"model":"\u00e9\\n"}'.encode()),
        ("\u00e9", "\\1", '{"model":"\u00e9"}'.encode(), b'{"model":"\\\\1"}'),
        ("t", "t", b'{"model":"t"}', b'{"model":"t"}'),
        ("t", "", b'{"model":"t"}"model":"t', b'{"model":""}"model":"t'),
        ("t", "orig", b"", b""),
    ],
)
def test_restore(target: str, original: str, body: bytes, expected: bytes) -> None:
    assert restore(target, original, body) == expected
    for at in range(len(body) + 1):
        assert restore(target, original, body[:at], b"", body[at:]) == expected
    assert restore(target, original, *[bytes((byte,)) for byte in body]) == expected


@pytest.mark.parametrize("stream", STREAMS)
def test_captured_streams(stream: bytes) -> None:
    expected = stream.replace(b'"model":"tiny-llama"', b'"model":"mine"')
    for at in range(len(stream)):
        assert restore("tiny-llama", "mine", stream[:at], stream[at:]) == expected


@given(
    st.sampled_from(("t", 'q"', '"', "model")),
    st.lists(
        st.sampled_from((b'"model":', b'"model": ', b'"', b'"t"', b'"q\\""', b'"model"', b":", b" ", b"\n", b"m", b'"mod', b'el":"t"')),
        max_size=25,
    ),
    st.lists(st.integers(0, 300), max_size=15),
)
def test_cut_anywhere(target: str, pieces: list[bytes], places: list[int]) -> None:
    stream = b"".join(pieces)
    name = re.escape(b'"' + target.replace('"', '\\"').encode() + b'"')
    expected = re.sub(rb'"model":( ?)' + name, rb'"model":\1"new"', stream)
    edges = [0, *sorted(place % (len(stream) + 1) for place in places), len(stream)]
    restorer = ModelRestorer(target, "new")
    out = b""
    for start, end in pairwise(edges):
        out += restorer.feed(stream[start:end])
        assert b'"model": "x'.startswith(restorer._held[:9]) or restorer._held.startswith(b'"model":')
        assert len(restorer._held) < len(b'"model": ') + len(target.replace('"', '\\"')) + 2
    assert out + restorer.finish() == expected


def test_nothing_is_held_back_without_need() -> None:
    restorer = ModelRestorer("t", "orig")
    assert restorer.feed(b'data: {"model":"t","x":1}\n\n') == b'data: {"model":"orig","x":1}\n\n'
    assert restorer.feed(b'{"mod') == b"{"
    assert restorer.feed(b"est") == b'"modest'
    assert (restorer.finish(), restorer.replaced) == (b"", 1)
