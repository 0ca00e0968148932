"""The OpenAI endpoints through the openai SDK."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import Any

import openai
import pytest
from openai.types.chat import ChatCompletionMessageParam

from tests.bench.sim.conftest import QUICK, Sim, Start

HELLO: list[ChatCompletionMessageParam] = [{"role": "user", "content": "hello there"}]


async def test_a_chat_answer(sim: Sim) -> None:
    answer = await sim.openai.chat.completions.create(
        model="sim-model", messages=HELLO, max_tokens=7, extra_headers={"x-request-id": "abc"}
    )
    again = await sim.openai.chat.completions.create(model="sim-model", messages=HELLO, max_completion_tokens=7)
    assert answer.id == "chatcmpl-abc"
    assert answer.choices[0].finish_reason == "length"
    assert answer.choices[0].message.content == again.choices[0].message.content
    assert len((answer.choices[0].message.content or "").split()) == 7
    assert answer.usage is not None
    assert (answer.usage.prompt_tokens, answer.usage.completion_tokens, answer.usage.total_tokens) == (5, 7, 12)


async def test_without_max_tokens_the_answer_ends_by_itself(sim: Sim) -> None:
    answer = await sim.openai.chat.completions.create(model="sim-model", messages=HELLO)
    assert answer.choices[0].finish_reason == "stop"
    assert answer.usage is not None
    assert 16 <= answer.usage.completion_tokens <= 64


async def test_a_chat_stream_with_usage(sim: Sim) -> None:
    stream = await sim.openai.chat.completions.create(
        model="sim-model", messages=HELLO, max_tokens=5, stream=True, stream_options={"include_usage": True}
    )
    chunks = [chunk async for chunk in stream]
    assert chunks[0].choices[0].delta.role == "assistant"
    assert chunks[0].choices[0].delta.content == ""
    assert [chunk.choices[0].finish_reason for chunk in chunks[1:-1]][-1] == "length"
    assert chunks[-1].choices == []
    assert chunks[-1].usage is not None
    assert chunks[-1].usage.completion_tokens == 5
    assert all(chunk.usage is None for chunk in chunks[:-1])
    whole = await sim.openai.chat.completions.create(model="sim-model", messages=HELLO, max_tokens=5)
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks[:-1]) == whole.choices[0].message.content


async def test_a_stream_without_usage_has_no_usage_chunk(sim: Sim) -> None:
    stream = await sim.openai.chat.completions.create(model="sim-model", messages=HELLO, max_tokens=3, stream=True)
    chunks = [chunk async for chunk in stream]
    assert all(chunk.choices and chunk.usage is None for chunk in chunks)


async def test_usage_in_every_chunk(sim: Sim) -> None:
    options: Any = {"include_usage": True, "continuous_usage_stats": True}
    stream = await sim.openai.completions.create(model="sim-model", prompt="one two", max_tokens=4, stream=True, stream_options=options)
    counts = [chunk.usage.completion_tokens async for chunk in stream if chunk.usage is not None]
    assert counts == sorted(counts)
    assert counts[-2:] == [4, 4]


@pytest.mark.parametrize(("prompt", "tokens"), [("a b c", 3), (["a b", "c d"], 4), ([1, 2, 3], 3), ([[1, 2], [3]], 3)])
async def test_completions_take_all_forms_of_prompts(sim: Sim, prompt: Any, tokens: int) -> None:
    answer = await sim.openai.completions.create(model="sim-model", prompt=prompt, max_tokens=3, n=2)
    prompts = len(prompt) if isinstance(prompt, list) and not isinstance(prompt[0], int) else 1
    assert [choice.index for choice in answer.choices] == list(range(2 * prompts))
    assert answer.choices[0].text != answer.choices[1].text
    assert answer.usage is not None
    assert (answer.usage.prompt_tokens, answer.usage.completion_tokens) == (tokens, 6 * prompts)


async def test_several_choices_stream_side_by_side(sim: Sim) -> None:
    whole = await sim.openai.chat.completions.create(model="sim-model", messages=HELLO, max_tokens=4, n=3)
    texts = {0: "", 1: "", 2: ""}
    async for chunk in await sim.openai.chat.completions.create(model="sim-model", messages=HELLO, max_tokens=4, n=3, stream=True):
        for choice in chunk.choices:
            texts[choice.index] += choice.delta.content or ""
    assert texts == {choice.index: choice.message.content for choice in whole.choices}


async def test_a_stop_text_ends_the_answer(sim: Sim) -> None:
    free = await sim.openai.completions.create(model="sim-model", prompt="x", max_tokens=9)
    stop = free.choices[0].text.split()[4]
    cut = await sim.openai.completions.create(model="sim-model", prompt="x", max_tokens=9, stop=[f" {stop}"])
    assert cut.choices[0].finish_reason == "stop"
    assert cut.choices[0].text == free.choices[0].text.split(f" {stop}")[0]


async def test_ignore_eos_runs_to_the_end_of_the_context(start: Start) -> None:
    sim = await start(replace(QUICK, max_model_len=80, inter_token_latency_ms=0.0))
    answer = await sim.openai.completions.create(model="sim-model", prompt="x y", extra_body={"ignore_eos": True})
    assert answer.usage is not None
    assert answer.usage.completion_tokens == 78


async def test_cached_tokens_are_reported(sim: Sim) -> None:
    prompt = list(range(40))
    await sim.openai.completions.create(model="sim-model", prompt=prompt, max_tokens=1)
    answer = await sim.openai.completions.create(model="sim-model", prompt=prompt, max_tokens=1)
    assert answer.usage is not None
    assert answer.usage.prompt_tokens_details is not None
    assert answer.usage.prompt_tokens_details.cached_tokens == 32
    assert await sim.value("vllm:prefix_cache_hits_total") == 32
    await sim.http.post("/reset_prefix_cache")
    fresh = await sim.openai.completions.create(model="sim-model", prompt=prompt, max_tokens=1)
    assert fresh.usage is not None
    assert fresh.usage.prompt_tokens_details is not None
    assert fresh.usage.prompt_tokens_details.cached_tokens == 0


async def test_embeddings(sim: Sim) -> None:
    answer = await sim.openai.embeddings.create(model="sim-model", input=["a b", "c"])
    again = await sim.openai.embeddings.create(model="sim-model", input="c", encoding_format="float")
    assert len(answer.data[0].embedding) == 384
    assert answer.data[1].embedding == pytest.approx(again.data[0].embedding)
    assert sum(x * x for x in answer.data[0].embedding) == pytest.approx(1.0)
    assert answer.usage.prompt_tokens == 3
    small = await sim.openai.embeddings.create(model="sim-model", input="c", dimensions=8)
    assert len(small.data[0].embedding) == 8


async def test_responses(sim: Sim) -> None:
    whole = await sim.openai.responses.create(model="sim-model", input="hello there", max_output_tokens=4)
    assert whole.status == "incomplete"
    assert len(whole.output_text.split()) == 4
    assert whole.usage is not None
    assert whole.usage.output_tokens == 4
    kinds, text = [], ""
    async for event in await sim.openai.responses.create(model="sim-model", input="hello there", max_output_tokens=4, stream=True):
        kinds.append(event.type)
        if event.type == "response.output_text.delta":
            text += event.delta
    assert text == whole.output_text
    assert kinds[:4] == ["response.created", "response.in_progress", "response.output_item.added", "response.content_part.added"]
    assert kinds[-4:] == [
        "response.output_text.done",
        "response.content_part.done",
        "response.output_item.done",
        "response.completed",
    ]


async def test_models_and_adapters(sim: Sim) -> None:
    listed = {model.id: getattr(model, "parent", None) for model in (await sim.openai.models.list()).data}
    assert listed == {"sim-model": None, "sql": "sim-model"}
    loaded = await sim.http.post("/v1/load_lora_adapter", json={"lora_name": "chat", "lora_path": "/adapters/chat"})
    assert loaded.status_code == 200
    answer = await sim.openai.chat.completions.create(model="chat", messages=HELLO, max_tokens=2)
    assert answer.model == "chat"
    page = (await sim.http.get("/metrics")).text
    assert 'vllm:lora_requests_info{max_lora="1",running_lora_adapters="chat",waiting_lora_adapters=""}' in page
    twice = await sim.http.post("/v1/load_lora_adapter", json={"lora_name": "chat", "lora_path": "/adapters/chat"})
    assert twice.status_code == 400
    assert (await sim.http.post("/v1/unload_lora_adapter", json={"lora_name": "chat"})).status_code == 200
    assert (await sim.http.post("/v1/unload_lora_adapter", json={"lora_name": "chat"})).status_code == 404
    with pytest.raises(openai.NotFoundError):
        await sim.openai.chat.completions.create(model="chat", messages=HELLO)


async def test_an_unknown_model_is_404_in_the_shape_of_vllm(sim: Sim) -> None:
    with pytest.raises(openai.NotFoundError) as refusal:
        await sim.openai.chat.completions.create(model="nope", messages=HELLO)
    assert refusal.value.body == {
        "message": "The model `nope` does not exist. Valid aliases: sim-model, sql.",
        "type": "NotFoundError",
        "param": "model",
        "code": 404,
    }


async def test_a_client_that_leaves_a_stream_frees_its_place(sim: Sim) -> None:
    stream = await sim.openai.chat.completions.create(model="sim-model", messages=HELLO, max_tokens=8000, stream=True)
    await anext(aiter(stream))
    assert await sim.value("vllm:num_requests_running") == 1
    await stream.close()
    await sim.until("vllm:request_success_total", 1, finished_reason="abort")
    assert await sim.value("vllm:num_requests_running") == 0
    assert await sim.value("vllm:kv_cache_usage_perc") == 0


async def test_a_client_that_leaves_the_queue_is_forgotten(sim: Sim) -> None:
    long = {"prompt": "x", "max_tokens": 8000}
    calls = [asyncio.create_task(sim.http.post("/v1/completions", json=long)) for _ in range(5)]
    await sim.until("vllm:num_requests_waiting", 3)
    assert await sim.value("vllm:num_requests_running") == 2
    for call in calls:
        call.cancel()
    await asyncio.gather(*calls, return_exceptions=True)
    await sim.until("vllm:request_success_total", 5, finished_reason="abort")
    for gauge in ("vllm:num_requests_running", "vllm:num_requests_waiting", "vllm:kv_cache_usage_perc"):
        assert await sim.value(gauge) == 0
