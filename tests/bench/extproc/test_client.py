"""The client against servers that answer well, badly, or not to the end."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import pytest

from bench.extproc.bodies import SSE_HEAD, json_answer, sse_chunks
from bench.extproc.client import Client, Job, Outcome

Handler = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


def answering(*answers: bytes, close_after: int | None = None) -> Handler:
    """Each request of a connection gets the next answer, the last one for ever; closed after so many."""

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        count = 0
        try:
            while close_after is None or count < close_after:
                head = await reader.readuntil(b"\r\n\r\n")
                await reader.readexactly(int(head.partition(b"content-length: ")[2].partition(b"\r\n")[0]))
                writer.write(answers[min(count, len(answers) - 1)])
                count += 1
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()

    return handle


@asynccontextmanager
async def served(handler: Handler) -> AsyncIterator[int]:
    server = await asyncio.start_server(handler, "127.0.0.1", 0)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()


async def seen(handler: Handler, *, events: int = 0, rate_per_s: float = 0.0, seconds: float = 0.3) -> Outcome:
    async with served(handler) as port:
        job = Job(
            port=port, prompt_bytes=2_000, prompts=2, concurrency=2, rate_per_s=rate_per_s, events=events, warmup_s=0.1, seconds=seconds,
            stagger_s=0.0,
        )  # fmt: skip
        async with asyncio.timeout(30):
            return await Client(job).run()


async def test_a_closed_loop_counts_answers() -> None:
    found = await seen(answering(json_answer()))
    assert found.requests > 1 and found.errors == {} and found.events == 0
    assert found.latencies["p50_ms"] > 0


async def test_an_open_loop_sends_what_is_due() -> None:
    found = await seen(answering(json_answer()), rate_per_s=100.0, seconds=1.0)
    # 100 were due; those under way at either end may count or not, and a busy machine shifts some.
    assert 20 <= found.requests <= 180 and found.errors == {}
    assert "late_p99_ms" in found.latencies


async def test_events_of_streams_are_counted_however_they_are_cut() -> None:
    whole = SSE_HEAD + b"".join(sse_chunks(10))

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while await reader.readuntil(b"\r\n\r\n"):
                for at in range(0, len(whole), 37):
                    writer.write(whole[at : at + 37])
                    await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()

    found = await seen(handle, events=10)
    assert found.requests > 0 and found.errors == {}
    assert abs(found.events - 10 * found.requests) <= 20


@pytest.mark.parametrize(("answer", "events", "error"), [
    (b"HTTP/1.1 503 Service Unavailable\r\ncontent-length: 0\r\n\r\n", 0, "status 503"),
    (SSE_HEAD + b"".join(sse_chunks(9)), 10, "9 events in place of 10"),
    (b"nonsense\r\n\r\n", 0, "not HTTP"),
])  # fmt: skip
async def test_a_wrong_answer_is_an_error(answer: bytes, events: int, error: str) -> None:
    found = await seen(answering(answer), events=events)
    assert found.requests == 0
    assert any(text.startswith(error) for text in found.errors)


async def test_an_answer_that_is_cut_short_is_an_error() -> None:
    found = await seen(answering(json_answer()[:-5], close_after=1))
    assert found.requests == 0
    assert "the connection was lost before the answer was complete" in found.errors


async def test_an_error_in_the_warm_up_is_an_error() -> None:
    found = await seen(answering(b"HTTP/1.1 500 Oops\r\ncontent-length: 0\r\n\r\n", json_answer()))
    assert found.requests > 0
    assert found.errors == {"status 500": 2}
