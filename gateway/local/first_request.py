"""The first request: a streamed chat completion through Envoy, and the picker's record of how it was routed."""

import asyncio
import json
import time
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import httpx

from gateway.local.decision import Decision

PROMPT = "In one sentence: what does an inference gateway do?"
MAX_TOKENS = 48
# The record is complete only after the picker has seen the end of the answer, a moment after the client has.
RECORD_WAIT_S = 3.0
RECORD_POLL_S = 0.1


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What came back. `error` is None for a 200 with text in it; times in seconds since the request was sent."""

    request_id: str
    status: int | None
    text: str
    first_text_s: float | None
    duration_s: float
    error: str | None


def _texts(line: str) -> Iterator[str]:
    if not line.startswith("data:") or (data := line[5:].strip()) == "[DONE]":
        return
    for choice in json.loads(data).get("choices", []):
        if text := (choice.get("delta") or {}).get("content"):
            yield text


def request_body(model: str) -> dict[str, Any]:
    """The chat completion that is asked for."""
    messages = [{"role": "user", "content": PROMPT}]
    return {
        "model": model,
        "messages": messages,
        "max_tokens": MAX_TOKENS,
        "stream": True,
        "stream_options": {"include_usage": True},
    }


async def ask(client: httpx.AsyncClient, gateway_url: str, model: str, on_text: Callable[[str], None]) -> Answer:
    """Send the request, hand each piece of text to `on_text` as it arrives, and say how it went; never raises for HTTP."""
    request_id = f"fairlead-{uuid.uuid4().hex[:12]}"
    began = time.monotonic()
    texts: list[str] = []
    first: float | None = None
    status: int | None = None
    error: str | None = None
    try:
        url = f"{gateway_url}/v1/chat/completions"
        async with client.stream("POST", url, json=request_body(model), headers={"x-request-id": request_id}) as response:
            status = response.status_code
            if status != 200:
                error = f"HTTP {status}: {(await response.aread()).decode('utf-8', 'replace').strip()[:500]}"
            else:
                async for line in response.aiter_lines():
                    for text in _texts(line):
                        first = time.monotonic() - began if first is None else first
                        texts.append(text)
                        on_text(text)
                error = None if texts else "HTTP 200 without any text"
    except (httpx.HTTPError, ValueError) as problem:
        error = f"{type(problem).__name__}: {problem}"
    return Answer(
        request_id=request_id, status=status, text="".join(texts), first_text_s=first, duration_s=time.monotonic() - began, error=error
    )


async def decisions(client: httpx.AsyncClient, picker_url: str, request_id: str) -> list[Decision]:
    """The picker's records of one request, settled if that happens within RECORD_WAIT_S; empty when it has none."""
    deadline = time.monotonic() + RECORD_WAIT_S
    found: list[Decision] = []
    while True:
        try:
            response = await client.get(f"{picker_url}/debug/decisions", params={"request_id": request_id})
            found = response.json()["decisions"] if response.status_code == 200 else []
        except (httpx.HTTPError, ValueError, KeyError):
            found = []
        if (found and all(decision.get("cause") for decision in found)) or time.monotonic() > deadline:
            return found
        await asyncio.sleep(RECORD_POLL_S)


async def first_model(client: httpx.AsyncClient, server: str) -> str | None:
    """The first model that a model server lists, or None."""
    try:
        listed = (await client.get(f"http://{server}/v1/models")).json()["data"]
        return str(listed[0]["id"])
    except (httpx.HTTPError, ValueError, KeyError, IndexError, TypeError):
        return None
