"""Bytes made beforehand, and the wheel that paces them."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any, cast

import pytest

from bench.extproc.bodies import chat_bodies, http_request, json_answer, sse_chunks
from bench.extproc.upstream import PAGES, page_responses
from bench.extproc.wheel import TICK_S, Wheel


@pytest.mark.parametrize("size", [2_000, 220_000, 4_000_000])
def test_bodies_are_of_about_the_size_asked_for(size: int) -> None:
    bodies = chat_bodies(size, 2, stream=False)
    assert all(0.99 * size <= len(body) <= 1.01 * size + 1_000 for body in bodies)
    assert bodies[0] != bodies[1]
    assert all("stream" not in json.loads(body) for body in bodies)


def test_a_small_body_holds_200_tokens() -> None:
    (body,) = chat_bodies(2_000, 1, stream=True)
    fields = json.loads(body)
    assert sum(len(message["content"]) for message in fields["messages"]) == 800
    assert fields["stream"] and fields["stream_options"] == {"include_usage": True}
    assert 1_990 <= len(body) <= 2_010


def test_large_bodies_share_their_first_half() -> None:
    first, second = chat_bodies(220_000, 2, stream=True)
    same = next(i for i, (a, b) in enumerate(zip(first, second, strict=False)) if a != b)
    assert 100_000 < same < 120_000


def test_a_request_says_how_long_its_body_is() -> None:
    head, _, body = http_request("127.0.0.1:1", b"{}").partition(b"\r\n\r\n")
    assert head.startswith(b"POST /v1/chat/completions HTTP/1.1\r\n") and b"content-length: 2" in head and body == b"{}"


def test_the_json_answer_tells_usage() -> None:
    head, _, body = json_answer().partition(b"\r\n\r\n")
    assert b"content-length: %d" % len(body) in head
    assert json.loads(body)["usage"]["completion_tokens"] == 100


@pytest.mark.parametrize("events", [3, 100, 1000])
def test_a_stream_has_as_many_events_as_chunks(events: int) -> None:
    chunks = sse_chunks(events)
    assert len(chunks) == events
    stream = b"".join(chunks)
    assert stream.endswith(b"data: [DONE]\n\n\r\n0\r\n\r\n")
    assert stream.replace(b"\r\n", b"").count(b"\n") == 2 * events
    assert stream.count(b'"usage"') == 1


def test_no_two_pages_in_a_row_are_the_same() -> None:
    for path in PAGES.values():
        pages = page_responses(path.read_bytes())
        assert all(a != b for a, b in zip(pages, [*pages[1:], pages[0]], strict=True))
        head, _, body = pages[0].partition(b"\r\n\r\n")
        assert b"content-length: %d" % len(body) in head and len(body) > 57_000


class Clock:
    """A loop with nothing but time."""

    def __init__(self) -> None:
        self.now_s = 100.0
        self.due: tuple[float, Callable[[], None]] | None = None

    def time(self) -> float:
        return self.now_s

    def call_at(self, when_s: float, call: Callable[[], None]) -> None:
        assert self.due is None
        self.due = (when_s, call)

    def tick(self, late_s: float = 0.0) -> None:
        """Let the one timer fire."""
        assert self.due is not None
        (self.now_s, call), self.due = self.due, None
        self.now_s += late_s
        call()


def wheel() -> tuple[Wheel, Clock]:
    clock = Clock()
    return Wheel(cast(Any, clock)), clock


class Stream:
    """Notes the times of its beats; ends after `beats`."""

    def __init__(self, clock: Clock, beats: int) -> None:
        self._clock, self._left = clock, beats
        self.at_s: list[float] = []

    def __call__(self) -> bool:
        self.at_s.append(self._clock.now_s)
        self._left -= 1
        return self._left > 0


def test_a_stream_beats_at_its_pace_and_the_wheel_stops_with_the_last() -> None:
    turning, clock = wheel()
    stream = Stream(clock, 5)
    turning.add(stream, 10)
    while clock.due is not None:
        clock.tick()
    assert len(stream.at_s) == 5
    assert [round((b - a) / TICK_S) for a, b in zip(stream.at_s, stream.at_s[1:], strict=False)] == [10] * 4
    turning.add(again := Stream(clock, 1), 10)
    while clock.due is not None:
        clock.tick()
    assert len(again.at_s) == 1


def test_streams_that_begin_together_are_spread_over_the_ticks() -> None:
    turning, clock = wheel()
    streams = [Stream(clock, 3) for _ in range(20)]
    for stream in streams:
        turning.add(stream, 10)
    while clock.due is not None:
        clock.tick()
    firsts = [round((stream.at_s[0] - 100.0) / TICK_S) for stream in streams]
    assert all(5 <= first <= 15 for first in firsts)
    assert max(firsts.count(first) for first in firsts) == 2


def test_a_late_timer_does_not_slow_a_stream_down() -> None:
    turning, clock = wheel()
    stream = Stream(clock, 10)
    turning.add(stream, 10)
    clock.tick(late_s=0.045)
    assert turning.latest_s == pytest.approx(0.045)
    assert len(stream.at_s) in (4, 5)


@pytest.mark.parametrize("pace", [0, 81])
def test_a_pace_that_the_wheel_cannot_hold_is_refused(pace: int) -> None:
    turning, clock = wheel()
    with pytest.raises(ValueError, match="expected 1 to 80"):
        turning.add(Stream(clock, 1), pace)
