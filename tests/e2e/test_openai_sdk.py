"""The official openai client, unchanged, with the gateway as its base URL."""

from __future__ import annotations

from openai import AsyncOpenAI, BadRequestError, NotFoundError
from openai.types.chat import ChatCompletionUserMessageParam

from tests.e2e.requests import MODEL, request_id, unique_text
from tests.support.envoy_stack import EnvoyStack


def user(text: str) -> list[ChatCompletionUserMessageParam]:
    return [{"role": "user", "content": text}]


async def test_a_chat_is_answered_and_its_record_agrees_with_what_the_client_saw(stack: EnvoyStack, openai: AsyncOpenAI) -> None:
    identity = request_id()
    raw = await openai.chat.completions.with_raw_response.create(
        model=MODEL, messages=user("Where is the harbour?"), max_tokens=12, extra_headers={"x-request-id": identity}
    )
    completion = raw.parse()
    assert completion.model == MODEL
    assert completion.choices[0].message.content
    assert completion.choices[0].finish_reason == "length"
    assert completion.usage is not None
    assert completion.usage.completion_tokens == 12
    assert raw.headers["x-request-id"] == identity

    record = await stack.decision(identity)
    assert record["served"] == raw.headers["x-sim-endpoint"] == record["picked"][0]
    assert (record["cause"], record["status"], record["path"]) == ("completed", 200, "/v1/chat/completions")
    assert (record["model"], record["target_model"]) == (MODEL, MODEL)
    assert (record["prompt_tokens"], record["completion_tokens"]) == (completion.usage.prompt_tokens, 12)
    assert sorted(record["addresses"]) == sorted(stack.servers)


async def test_a_streamed_chat_with_usage_arrives_token_by_token(stack: EnvoyStack, openai: AsyncOpenAI) -> None:
    identity = request_id()
    stream = await openai.chat.completions.create(
        model=MODEL,
        messages=user("Tell me about tides."),
        max_tokens=40,
        stream=True,
        stream_options={"include_usage": True},
        extra_headers={"x-request-id": identity},
    )
    chunks = [chunk async for chunk in stream]
    words = [chunk.choices[0].delta.content for chunk in chunks if chunk.choices and chunk.choices[0].delta.content]
    assert len("".join(words).split()) == 40
    assert len(words) > 1
    assert chunks[-1].usage is not None
    assert chunks[-1].usage.completion_tokens == 40

    record = await stack.decision(identity)
    assert (record["cause"], record["completion_tokens"]) == ("completed", 40)
    assert record["prompt_tokens"] == chunks[-1].usage.prompt_tokens
    assert 0 < record["ttft_s"] < record["total_s"]


async def test_a_streamed_chat_without_usage_gets_none_and_is_still_recorded(stack: EnvoyStack, openai: AsyncOpenAI) -> None:
    identity = request_id()
    stream = await openai.chat.completions.create(
        model=MODEL, messages=user("Hello"), max_tokens=5, stream=True, extra_headers={"x-request-id": identity}
    )
    chunks = [chunk async for chunk in stream]
    assert all(chunk.usage is None for chunk in chunks)
    assert chunks[-1].choices[0].finish_reason == "length"
    record = await stack.decision(identity)
    assert (record["cause"], record["completion_tokens"]) == ("completed", None)


async def test_a_stream_and_a_plain_answer_say_the_same(openai: AsyncOpenAI) -> None:
    prompt = unique_text(5)
    plain = await openai.chat.completions.create(model=MODEL, messages=user(prompt), max_tokens=30)
    stream = await openai.chat.completions.create(model=MODEL, messages=user(prompt), max_tokens=30, stream=True)
    streamed = "".join([chunk.choices[0].delta.content or "" async for chunk in stream])
    assert streamed == plain.choices[0].message.content


async def test_completions_are_answered_for_several_prompts_at_once(stack: EnvoyStack, openai: AsyncOpenAI) -> None:
    identity = request_id()
    answer = await openai.completions.create(model=MODEL, prompt=["One", "Two"], max_tokens=6, extra_headers={"x-request-id": identity})
    assert [choice.index for choice in answer.choices] == [0, 1]
    assert all(len(choice.text.split()) == 6 for choice in answer.choices)
    assert (await stack.decision(identity))["completion_tokens"] == 12


async def test_completions_are_streamed(openai: AsyncOpenAI) -> None:
    stream = await openai.completions.create(model=MODEL, prompt="One", max_tokens=6, stream=True)
    assert len("".join([chunk.choices[0].text async for chunk in stream if chunk.choices]).split()) == 6


async def test_embeddings_come_as_vectors(stack: EnvoyStack, openai: AsyncOpenAI) -> None:
    identity = request_id()
    answer = await openai.embeddings.create(model=MODEL, input=["ship", "harbour"], extra_headers={"x-request-id": identity})
    assert [len(item.embedding) for item in answer.data] == [384, 384]
    record = await stack.decision(identity)
    assert (record["cause"], record["prompt_tokens"]) == ("completed", answer.usage.prompt_tokens)


async def test_a_large_answer_is_passed_whole(openai: AsyncOpenAI) -> None:
    """Some megabytes of JSON in one answer: held back and sent on in pieces that Envoy takes."""
    answer = await openai.embeddings.create(model=MODEL, input=[f"text {n}" for n in range(40)], dimensions=8192, encoding_format="float")
    assert [len(item.embedding) for item in answer.data] == [8192] * 40


async def test_responses_are_answered_and_streamed(stack: EnvoyStack, openai: AsyncOpenAI) -> None:
    plain, streamed = request_id(), request_id()
    answer = await openai.responses.create(model=MODEL, input="Which way is north?", extra_headers={"x-request-id": plain})
    assert answer.status == "completed"
    assert answer.output_text
    assert answer.usage is not None
    assert (await stack.decision(plain))["completion_tokens"] == answer.usage.output_tokens

    stream = await openai.responses.create(model=MODEL, input="Which way is north?", stream=True, extra_headers={"x-request-id": streamed})
    kinds, text = [], ""
    async for event in stream:
        kinds.append(event.type)
        if event.type == "response.output_text.delta":
            text += event.delta
    assert (kinds[0], kinds[-1]) == ("response.created", "response.completed")
    assert text == answer.output_text
    assert (await stack.decision(streamed))["completion_tokens"] == answer.usage.output_tokens


async def test_models_are_listed_by_some_server(stack: EnvoyStack, openai: AsyncOpenAI) -> None:
    """A request of headers only: no body to decide by, so any server will do and no decision is recorded."""
    identity = request_id()
    raw = await openai.models.with_raw_response.list(extra_headers={"x-request-id": identity})
    assert MODEL in [model.id for model in raw.parse().data]
    assert raw.headers["x-sim-endpoint"] in stack.servers
    assert await stack.decisions_of(identity) == 0


async def test_a_model_nobody_serves_is_the_model_servers_own_answer(openai: AsyncOpenAI) -> None:
    try:
        await openai.chat.completions.create(model="no-such-model", messages=user("Hello"))
    except NotFoundError as error:
        assert "The model `no-such-model` does not exist." in error.message
    else:
        raise AssertionError("it was answered")


async def test_a_missing_model_is_refused_by_the_picker(openai: AsyncOpenAI) -> None:
    try:
        await openai.chat.completions.create(model="", messages=user("Hello"))
    except BadRequestError as error:
        assert error.response.text == "inference error: BadRequest - model not found in request body"
    else:
        raise AssertionError("it was answered")
