"""Requests that several scenarios send, and how their answers are read."""

from __future__ import annotations

import json
import uuid
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from typing import Any

import httpx

CHAT = "/v1/chat/completions"
MODEL = "demo-model"


def request_id() -> str:
    """An id to find the decision record by."""
    return f"e2e-{uuid.uuid4().hex}"


def chat_body(text: str = "Hello", *, max_tokens: int = 8, **more: Any) -> dict[str, Any]:
    """A chat completion request."""
    return {"model": MODEL, "messages": [{"role": "user", "content": text}], "max_tokens": max_tokens, **more}


def unique_text(words: int) -> str:
    """A prompt that nobody has sent before."""
    return " ".join(uuid.uuid4().hex[:12] for _ in range(words))


def events(text: str) -> Iterator[Any]:
    """The JSON values of a stream of server-sent events, which must end as OpenAI's do."""
    lines = [line.removeprefix("data: ") for line in text.splitlines() if line.startswith("data: ")]
    assert lines[-1] == "[DONE]"
    yield from map(json.loads, lines[:-1])


@asynccontextmanager
async def open_stream(client: httpx.AsyncClient, *, max_tokens: int, identity: str | None = None) -> AsyncIterator[httpx.Response]:
    """A streamed chat whose first event has arrived; the rest is up to the caller."""
    body = chat_body(unique_text(4), max_tokens=max_tokens, stream=True, stream_options={"include_usage": True})
    headers = {} if identity is None else {"x-request-id": identity}
    async with client.stream("POST", CHAT, json=body, headers=headers) as response:
        assert response.status_code == 200
        response.extensions["lines"] = lines = response.aiter_lines()
        assert (await anext(lines)).startswith("data: ")
        yield response


async def rest_of(response: httpx.Response) -> str:
    """What comes after the first event of `open_stream`."""
    return "\n".join([line async for line in response.extensions["lines"]])
