"""Usage out of streams, however they are cut."""

from __future__ import annotations

import time
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from picker.accounting.sse import MAX_EVENT_BYTES, SseUsageReader
from picker.request import UsageFormat
from picker.result import Usage

OPENAI, RESPONSES, ANTHROPIC = UsageFormat.OPENAI, UsageFormat.RESPONSES, UsageFormat.ANTHROPIC
DATA = Path(__file__).parents[2] / "data" / "sse"
CAPTURED = {
    "chat_usage": (OPENAI, Usage(11, 4, 15), 6, True),
    "chat_continuous_usage": (OPENAI, Usage(11, 2, 13), 4, True),
    "chat_no_usage": (OPENAI, None, 3, True),
    "completions": (OPENAI, Usage(4, 3, 7), 4, True),
    "messages": (ANTHROPIC, Usage(8, 3, 11), 8, True),
    "responses": (RESPONSES, Usage(8, 3, 11, 0, 0), 10, True),
}
STREAMS = {name: (DATA / f"{name}.txt").read_bytes() for name in CAPTURED}


def read(format: UsageFormat, *chunks: bytes) -> SseUsageReader:
    reader = SseUsageReader(format)
    for chunk in chunks:
        reader.feed(chunk)
    reader.finish()
    return reader


def seen(reader: SseUsageReader) -> tuple[Usage | None, int, bool]:
    return reader.usage, reader.events, reader.done


def cut(stream: bytes, places: list[int]) -> list[bytes]:
    edges = [0, *sorted(place % (len(stream) + 1) for place in places), len(stream)]
    return [stream[start:end] for start, end in pairwise(edges)]


@pytest.mark.parametrize("name", CAPTURED)
@pytest.mark.parametrize("ends", [b"\n", b"\r\n", b"\r"])
def test_captured_streams(name: str, ends: bytes) -> None:
    format, *expected = CAPTURED[name]
    stream = STREAMS[name].replace(b"\n", ends)
    whole = tuple(expected)
    events = [event + ends * 2 for event in stream.split(ends * 2) if event]
    assert seen(read(format, stream)) == whole
    assert seen(read(format, *events)) == whole
    assert seen(read(format, *[stream[at : at + 1] for at in range(len(stream))])) == whole
    assert seen(read(format, b"\xef\xbb\xbf" + stream.rstrip(b"\r\n"))) == whole
    for at in range(len(stream)):
        assert seen(read(format, stream[:at], stream[at:])) == whole


@given(st.sampled_from(sorted(CAPTURED)), st.sampled_from((b"\n", b"\r\n", b"\r")), st.lists(st.integers(0, 10_000), max_size=40))
def test_captured_streams_cut_anywhere(name: str, ends: bytes, places: list[int]) -> None:
    format, *expected = CAPTURED[name]
    assert seen(read(format, *cut(STREAMS[name].replace(b"\n", ends), places))) == tuple(expected)


PIECES = st.sampled_from(
    (
        b"\n",
        b"\r",
        b"\r\n",
        b"data:",
        b"data: ",
        b'{"usage":{"prompt_tokens":1,',
        b'"completion_tokens":2}}',
        b"[DONE]",
        b":x",
        b"event: a",
        b"\n\n",
        b"x",
    )
)


@given(st.lists(PIECES, max_size=30).map(b"".join), st.lists(st.integers(0, 500), max_size=20))
def test_any_bytes_cut_anywhere(stream: bytes, places: list[int]) -> None:
    whole = read(OPENAI, stream)
    assert seen(read(OPENAI, *cut(stream, places))) == seen(whole)
    assert whole.events == reference_events(stream)


def reference_events(stream: bytes) -> int:
    """Counts line by line, the slow way."""
    count, data = 0, []
    for line in [*stream.splitlines(), b""]:
        if line:
            data += [line[5:]] if line.startswith(b"data:") else []
            continue
        count += bool(data) and b"\n".join(data).strip() != b"[DONE]"
        data = []
    return count


@given(st.lists(st.binary(max_size=20), max_size=10), st.sampled_from(list(UsageFormat)))
def test_garbage_is_no_usage(chunks: list[bytes], format: UsageFormat) -> None:
    assert read(format, *chunks).usage is None


@pytest.mark.parametrize(
    ("stream", "usage", "events", "done"),
    [
        (b'data:{"usage":{"prompt_tokens":7,"total_tokens":17,"completion_tokens":10}}\ndata: [DONE]', Usage(7, 10, 17), 1, True),
        (b'data: {}data: {"usage":{"prompt_tokens":7,"total_tokens":17,"completion_tokens":10}}\ndata: [DONE]', Usage(7, 10, 17), 1, True),
        (b'data: {"text":"[DONE]"}\n\n', None, 1, False),
        (b'data: {"usage" : {"prompt_tokens":7,"completion_tokens":10}}', Usage(7, 10, 17), 1, False),
        (b'data: {"usage":\ndata: {"prompt_tokens":7}}\n\n', Usage(7), 1, False),
        (b': ping\n\ndata: {"a":1}\n\n: ping\n\n', None, 1, False),
        (b"event: x\nid: 1\nretry: 5\n\n", None, 0, False),
        (b"data: [DONE]\n\n", None, 0, True),
        (b"data:[DONE]", None, 0, True),
        (b"", None, 0, False),
        (b"\n\n\n\r\n\r", None, 0, False),
        (b'data: {"usage":null}\n\n', None, 1, False),
        (b'data: {"usage": null,"x":{"usage":null}}\n\n', None, 1, False),
        (b'data: {"x":{"usage":null},"usage":{"prompt_tokens":1}}\n\n', Usage(1), 1, False),
        (b'data: {"text":"say \\"usage\\":{\\"prompt_tokens\\":1}"}\n\n', None, 1, False),
        (b'data: {"x":{"usage":{"prompt_tokens":1}}}\n\n', None, 1, False),
        (b'data: {"usage":{"prompt_tokens":1}}\n\ndata: {"usage":{"prompt_tokens":2}}\n\n', Usage(2), 2, False),
        (b'data: {"usage":{"prompt_tokens":1}}\n\ndata: {"usage":{"prompt_tokens":-2}}\n\n', Usage(1), 2, False),
        (b'data: {"usage":{"prompt_tokens":1}}\n\ndata: {"usage":[}\n\n', Usage(1), 2, False),
        (b'data: {"usage":{"prompt_tokens":5,"prompt_tokens_details":{"cached_tokens":3}}}\n\n', Usage(5, cached_tokens=3), 1, False),
    ],
)
def test_openai(stream: bytes, usage: Usage | None, events: int, done: bool) -> None:
    assert seen(read(OPENAI, stream)) == (usage, events, done)


@pytest.mark.parametrize("kind", ["completed", "incomplete", "failed"])
def test_responses_end_in_three_ways(kind: str) -> None:
    head = b'data: {"type":"response.%b","response":' % kind.encode()
    assert seen(read(RESPONSES, head + b'{"usage":{"input_tokens":1,"output_tokens":2}}}\n\n')) == (Usage(1, 2, 3), 1, True)
    assert seen(read(RESPONSES, head + b'{"usage":null}}\n\n')) == (None, 1, True)
    assert seen(read(RESPONSES, head + b"7}\n\n")) == (None, 1, False)


def test_responses_usage_before_the_end_does_not_count() -> None:
    assert read(RESPONSES, b'data: {"type":"response.created","response":{"usage":{"input_tokens":1}}}\n\n').usage is None


def test_anthropic_cache_tokens_are_part_of_the_prompt() -> None:
    counts = b'"input_tokens":8,"cache_read_input_tokens":4,"cache_creation_input_tokens":2'
    start = b'data: {"type":"message_start","message":{"usage":{%b}}}\n\n' % counts
    delta = b'data: {"type":"message_delta","usage":{"output_tokens":3,"input_tokens":null}}\n\n'
    assert seen(read(ANTHROPIC, start, delta)) == (Usage(14, 3, 17, 4), 2, False)


@pytest.mark.parametrize("text", ["message_stop", "event: message_stop"])
def test_text_about_the_last_event_is_not_the_last_event(text: str) -> None:
    assert not read(ANTHROPIC, b'data: {"type":"content_block_delta","delta":{"text":"%b"}}\n\n' % text.encode()).done


@pytest.mark.parametrize("size", [1, 7, 65_536])
@pytest.mark.parametrize("ends", [b"\n\n", b"\r\n\r\n"])
def test_a_huge_event_is_dropped_and_the_next_one_read(size: int, ends: bytes) -> None:
    stream = b"data: " + b"x" * (MAX_EVENT_BYTES + 100_000) + ends + b'data: {"usage":{"prompt_tokens":1}}' + ends
    reader = SseUsageReader(OPENAI)
    started = time.process_time()
    for at in range(0, len(stream), size):
        reader.feed(stream[at : at + size])
        assert len(reader._pending) <= MAX_EVENT_BYTES
    reader.finish()
    assert time.process_time() - started < 20
    assert (seen(reader), reader.overflowed) == ((Usage(1), 2, False), 1)


def test_a_huge_event_in_one_chunk_is_read() -> None:
    event = b'data: {"x":"' + b"x" * 3_000_000 + b'","usage":{"prompt_tokens":1}}\n\n'
    assert (read(OPENAI, event).usage, read(OPENAI, event).overflowed) == (Usage(1), 0)
