"""What the OpenAI SDK does not reach: Anthropic's endpoints, errors, headers, the small endpoints."""

from __future__ import annotations

from typing import Any

import pytest

from tests.bench.sim.conftest import Sim

HELLO = {"messages": [{"role": "user", "content": "hello there"}], "max_tokens": 3}


async def test_messages(sim: Sim) -> None:
    whole = (await sim.http.post("/v1/messages", json=HELLO | {"model": "sim-model", "system": "Be brief."})).json()
    assert (whole["type"], whole["role"], whole["stop_reason"]) == ("message", "assistant", "max_tokens")
    assert whole["usage"] == {"input_tokens": 9, "output_tokens": 3}
    counted = await sim.http.post("/v1/messages/count_tokens", json={"messages": HELLO["messages"], "system": "Be brief."})
    assert counted.json() == {"input_tokens": 9}


async def test_a_stream_of_messages_has_the_sequence_of_events(sim: Sim) -> None:
    answer = await sim.http.post("/v1/messages", json=HELLO | {"stream": True})
    assert answer.headers["content-type"] == "text/event-stream; charset=utf-8"
    kinds = [line.removeprefix("event: ") for line in answer.text.splitlines() if line.startswith("event: ")]
    assert kinds[:2] == ["message_start", "content_block_start"]
    assert set(kinds[2:-3]) == {"content_block_delta"}
    assert kinds[-3:] == ["content_block_stop", "message_delta", "message_stop"]


async def test_a_stop_sequence_is_named(sim: Sim) -> None:
    text = (await sim.http.post("/v1/messages", json=HELLO)).json()["content"][0]["text"]
    word = text.split()[1]
    cut = (await sim.http.post("/v1/messages", json=HELLO | {"stop_sequences": [word]})).json()
    assert (cut["stop_reason"], cut["stop_sequence"]) == ("stop_sequence", word)


@pytest.mark.parametrize(
    ("path", "body", "status", "kind", "param"),
    [
        ("/v1/completions", b'{"prompt": ', 400, "Bad Request", "body"),
        ("/v1/completions", b"[" * 100_000, 400, "Bad Request", None),
        ("/v1/completions", b"{}", 400, "Bad Request", "prompt"),
        ("/v1/completions", b'{"prompt": "a", "max_tokens": "x"}', 400, "Bad Request", "max_tokens"),
        ("/v1/completions", b'{"prompt": "a", "max_tokens": 0}', 400, "BadRequestError", "max_tokens"),
        ("/v1/completions", b'{"prompt": "a", "max_tokens": 9000}', 400, "BadRequestError", "max_tokens"),
        ("/v1/completions", b'{"prompt": "a", "n": 0}', 400, "BadRequestError", "n"),
        ("/v1/completions", b'{"prompt": "%s"}' % (b"a " * 9000), 400, "BadRequestError", "input_tokens"),
        ("/v1/chat/completions", b'{"messages": []}', 400, "BadRequestError", "messages"),
        ("/v1/chat/completions", b'{"messages": [{"content": "x"}]}', 400, "Bad Request", "messages[0].role"),
        ("/v1/chat/completions", b'{"messages": [{"role": "user", "content": [{"text": "x"}]}]}', 400, "BadRequestError", "messages"),
        ("/v1/embeddings", b'{"input": "a", "model": "nope"}', 404, "NotFoundError", "model"),
        ("/v1/responses", b'{"input": 3}', 400, "Bad Request", "input"),
        ("/tokenize", b"{}", 400, "BadRequestError", "prompt"),
    ],
)
async def test_errors_have_the_shape_of_vllm(sim: Sim, path: str, body: bytes, status: int, kind: str, param: str | None) -> None:
    answer = await sim.http.post(path, content=body)
    error: dict[str, Any] = answer.json()["error"]
    assert (answer.status_code, error["type"], error["code"]) == (status, kind, status)
    assert param is None or error["param"] == param
    assert error["message"]


async def test_errors_of_messages_have_the_shape_of_anthropic(sim: Sim) -> None:
    answer = await sim.http.post("/v1/messages", json=HELLO | {"model": "nope"})
    assert answer.status_code == 404
    assert (answer.json()["type"], answer.json()["error"]["type"]) == ("error", "not_found_error")


async def test_paths_and_methods_not_known(sim: Sim) -> None:
    unknown, wrong = await sim.http.get("/nope"), await sim.http.get("/v1/completions")
    assert (unknown.status_code, unknown.json()) == (404, {"detail": "Not Found"})
    assert (wrong.status_code, wrong.headers["allow"]) == (405, "POST")


async def test_headers_say_who_served_and_with_which_load(sim: Sim) -> None:
    asking = {"endpoint-load-metrics-format": "JSON"}
    whole = await sim.http.post("/v1/completions", json={"prompt": "a", "max_tokens": 1}, headers=asking)
    assert whole.headers["x-sim-endpoint"] == sim.base_url.removeprefix("http://")
    assert whole.headers["endpoint-load-metrics"] == 'JSON {"named_metrics": {"num_requests_waiting": 0.0, "kv_cache_usage_perc": 0.0}}'
    streamed = await sim.http.post("/v1/completions", json={"prompt": "a", "max_tokens": 1, "stream": True}, headers=asking)
    assert "endpoint-load-metrics" not in streamed.headers
    other = await sim.http.post("/v1/messages", json=HELLO | {"max_tokens": 1}, headers=asking)
    assert other.status_code == 200 and "endpoint-load-metrics" not in other.headers
    assert "endpoint-load-metrics" not in (await sim.http.post("/v1/completions", json={"prompt": "a", "max_tokens": 1})).headers


async def test_tokenize(sim: Sim) -> None:
    answer = (await sim.http.post("/tokenize", json={"prompt": "one two one", "return_token_strs": True})).json()
    assert (answer["count"], answer["max_model_len"], answer["token_strs"]) == (3, 8192, ["one", "two", "one"])
    assert answer["tokens"][0] == answer["tokens"][2] != answer["tokens"][1]


async def test_rerank_and_score(sim: Sim) -> None:
    ranked = (await sim.http.post("/v1/rerank", json={"query": "red boat", "documents": ["a house", "red boat"], "top_n": 1})).json()
    assert [result["index"] for result in ranked["results"]] == [1]
    scored = (await sim.http.post("/v1/score", json={"text_1": "red boat", "text_2": ["red boat", "a house"]})).json()
    assert [row["score"] for row in scored["data"]] == [1.0, 0.0]
    empty = await sim.http.post("/v1/rerank", json={"query": "red boat", "documents": []})
    assert empty.status_code == 400


async def test_the_small_endpoints(sim: Sim) -> None:
    assert [(await sim.http.get(path)).status_code for path in ("/health", "/ping", "/version", "/metrics")] == [200] * 4
    assert (await sim.http.get("/metrics")).headers["content-type"].startswith("text/plain; version=")
