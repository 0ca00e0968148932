"""OpenAI's JSON inside calls of Vertex AI's prediction service, and the usage in their answers."""

from __future__ import annotations

import json
from typing import Any

import pytest

from picker.accounting.grpc_usage import HttpBodyUsageReader
from picker.errors import BadRequest
from picker.parsing.openai import NO_MESSAGES
from picker.parsing.vertexai import NO_BODY, UNKNOWN_API, VertexAIParser
from picker.plugin import NoParameters
from picker.request import ParsedBody, UsageFormat
from picker.result import Usage
from tests.support.vllm_grpc import field, frame

PARSER = VertexAIParser("vertex", NoParameters(), None)  # type: ignore[arg-type]
SERVICE = "/google.cloud.aiplatform.v1.PredictionService"


def call(body: object) -> bytes:
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    return frame(field(1, "projects/p/endpoints/e") + field(2, field(1, "application/json") + field(2, data)))


def parse(method: str, body: Any, service: str = SERVICE) -> ParsedBody:
    return PARSER.parse(f"{service}/{method}", {}, call(body))


CHAT = {"model": "m", "messages": [{"role": "user", "content": "hi"}], "max_tokens": 5, "stream": True}


@pytest.mark.parametrize("service", [SERVICE, "/google.cloud.aiplatform.v1beta1.PredictionService", "/PredictionService"])
@pytest.mark.parametrize("method", ["ChatCompletions", "RawPredict", "StreamRawPredict"])
def test_chat(service: str, method: str) -> None:
    parsed = parse(method, CHAT, service)
    assert (parsed.model, parsed.prompt.data, parsed.max_output_tokens, parsed.stream) == ("m", b"userhi", 5, True)
    assert not parsed.model_rewritable


def test_the_body_says_which_api() -> None:
    assert parse("RawPredict", {"model": "m", "prompt": "abc"}).prompt.data == b"abc"
    assert parse("RawPredict", {"model": "m", "input": ["a", "b"]}).prompt.data == b"ab"


@pytest.mark.parametrize(
    ("method", "body", "message"),
    [
        ("ChatCompletions", {"model": "m"}, NO_MESSAGES),
        ("RawPredict", {"model": "m"}, UNKNOWN_API),
        ("RawPredict", b"", NO_BODY),
        ("RawPredict", b"null", NO_MESSAGES),
        ("RawPredict", b"{", "error unmarshaling request bodyMap: unexpected end of JSON input"),
    ],
)
def test_refusals(method: str, body: object, message: str) -> None:
    with pytest.raises(BadRequest) as caught:
        parse(method, body)
    assert caught.value.message == message


def test_frames_that_cannot_be_read() -> None:
    for body in (b"", frame(b"x", 1), frame(b"\x12\x7f")):
        with pytest.raises(BadRequest, match="invalid prediction request: "):
            PARSER.parse(f"{SERVICE}/RawPredict", {}, body)


USAGE = {"usage": {"prompt_tokens": 7, "completion_tokens": 3, "total_tokens": 10}}


@pytest.mark.parametrize("step", [1, 5, 1000])
@pytest.mark.parametrize("streaming", [False, True])
def test_usage(step: int, streaming: bool) -> None:
    text = json.dumps(USAGE).encode()
    parts = [b'data: {"choices":[]}\n\n', b"data: " + text[:9], text[9:] + b"\n\ndata: [DONE]\n\n"] if streaming else [text]
    body = b"".join(frame(field(1, "x") + field(2, part)) for part in parts)
    reader = HttpBodyUsageReader(UsageFormat.OPENAI, streaming=streaming)
    for start in range(0, len(body), step):
        reader.feed(body[start : start + step])
    assert reader.finish() == Usage(7, 3, 10)
