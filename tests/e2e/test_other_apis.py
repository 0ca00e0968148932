"""Anthropic's messages and vLLM's own endpoints."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import httpx
import pytest

from tests.e2e.requests import MODEL, request_id, unique_text
from tests.support.envoy_stack import EnvoyStack


def message(text: str = "Hello", **more: Any) -> dict[str, Any]:
    return {"model": MODEL, "max_tokens": 10, "messages": [{"role": "user", "content": text}], **more}


async def test_an_anthropic_message_is_answered_and_its_usage_recorded(stack: EnvoyStack, http: httpx.AsyncClient) -> None:
    identity = request_id()
    body = message(unique_text(5), system="Be brief.")
    answer = await http.post("/v1/messages", json=body, headers={"x-request-id": identity, "anthropic-version": "2023-06-01"})
    assert answer.status_code == 200, answer.text
    said = answer.json()
    assert (said["type"], said["role"], said["stop_reason"]) == ("message", "assistant", "max_tokens")
    record = await stack.decision(identity)
    assert (record["cause"], record["model"], record["path"]) == ("completed", MODEL, "/v1/messages")
    assert (record["prompt_tokens"], record["completion_tokens"]) == (said["usage"]["input_tokens"], 10)


async def test_an_anthropic_stream_keeps_its_events_and_its_usage_is_recorded(stack: EnvoyStack, http: httpx.AsyncClient) -> None:
    identity = request_id()
    answer = await http.post("/v1/messages", json=message(unique_text(5), stream=True), headers={"x-request-id": identity})
    assert answer.headers["content-type"].startswith("text/event-stream")
    events = [json.loads(line[6:]) for line in answer.text.splitlines() if line.startswith("data: ")]
    names = [line[7:] for line in answer.text.splitlines() if line.startswith("event: ")]
    assert names == [event["type"] for event in events]
    assert (names[0], names[-1]) == ("message_start", "message_stop")
    record = await stack.decision(identity)
    assert record["cause"] == "completed"
    assert record["prompt_tokens"] == events[0]["message"]["usage"]["input_tokens"]
    assert record["completion_tokens"] == events[-2]["usage"]["output_tokens"] == 10


async def test_anthropic_errors_keep_their_shape(http: httpx.AsyncClient) -> None:
    answer = await http.post("/v1/messages", json=message() | {"model": "no-such-model"})
    assert answer.status_code == 404
    assert answer.json()["error"]["type"] == "not_found_error"


async def test_count_tokens_is_answered_whole_every_time(stack: EnvoyStack, http: httpx.AsyncClient) -> None:
    """Many, and some at once: a picker that ended its ext_proc stream after the request would lose an answer that Envoy, in full
    duplex, has already handed over to it."""
    body = message("one two three")
    del body["max_tokens"]

    async def ask() -> str:
        answer = await http.post("/v1/messages/count_tokens", json=body)
        assert answer.status_code == 200
        return answer.text

    for _ in range(25):
        assert set(await asyncio.gather(*[ask() for _ in range(8)])) == {'{"input_tokens":6}'}
    identity = request_id()
    await http.post("/v1/messages/count_tokens", json=body, headers={"x-request-id": identity})
    assert (await stack.decision(identity))["cause"] == "completed"


@pytest.mark.parametrize("words", [15_000, 100_000, 300_000])
async def test_count_tokens_of_a_long_prompt_is_answered_whole(http: httpx.AsyncClient, words: int) -> None:
    answer = await http.post("/v1/messages/count_tokens", json=message(" ".join(["word"] * words)))
    assert answer.json() == {"input_tokens": words + 3}


async def test_tokenize_is_passed(stack: EnvoyStack, http: httpx.AsyncClient) -> None:
    answer = await http.post("/tokenize", json={"model": MODEL, "prompt": "one two three", "return_token_strs": True})
    assert answer.json()["token_strs"] == ["one", "two", "three"]
    assert answer.headers["x-sim-endpoint"] in stack.servers
    # vLLM tokenizes without being told a model.
    assert (await http.post("/tokenize", json={"prompt": "one two"})).json()["count"] == 2


async def test_rerank_and_score_are_passed_and_their_usage_recorded(stack: EnvoyStack, http: httpx.AsyncClient) -> None:
    identity = request_id()
    body = {"model": MODEL, "query": "deep water", "documents": ["shallow sand", "deep water harbour"], "top_n": 1}
    for path in ("/v1/rerank", "/rerank"):
        answer = await http.post(path, json=body, headers={"x-request-id": identity + path[1:3]})
        assert [result["index"] for result in answer.json()["results"]] == [1]
        record = await stack.decision(identity + path[1:3])
        assert (record["cause"], record["prompt_tokens"]) == ("completed", answer.json()["usage"]["prompt_tokens"])
    score = await http.post("/v1/score", json={"model": MODEL, "text_1": "deep water", "text_2": ["deep water", "sand"]})
    assert [item["score"] for item in score.json()["data"]] == [1.0, 0.0]


async def test_an_uploaded_form_is_passed_as_it_is(http: httpx.AsyncClient) -> None:
    """The simulator knows no audio; its own answer shows that the form got there."""
    answer = await http.post("/v1/audio/transcriptions", data={"model": MODEL}, files={"file": ("a.wav", b"\0" * 100_000)})
    assert (answer.status_code, answer.json()) == (404, {"detail": "Not Found"})
    assert "x-sim-endpoint" in answer.headers
