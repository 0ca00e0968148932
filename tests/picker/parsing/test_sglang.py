"""SGLang's `generate`, and the usage in its answers."""

from __future__ import annotations

import json
import struct
from typing import Any

import pytest

from picker.accounting.sse import SseUsageReader
from picker.accounting.usage import JsonUsageTail, read_usage_json
from picker.errors import BadRequest
from picker.parsing.sglang import NO_INPUT_IDS, SglangHttpParser
from picker.plugin import NoParameters
from picker.request import ParsedBody, UsageFormat
from picker.result import Usage

PARSER = SglangHttpParser("sglang", NoParameters(), None)  # type: ignore[arg-type]


def parse(body: Any, path: str = "/generate") -> ParsedBody:
    return PARSER.parse(path, {}, json.dumps(body).encode())


def test_everything_that_is_read() -> None:
    parsed = parse({"input_ids": [1, 2**32 - 1], "extra_key": "tenant", "sampling_params": {"max_new_tokens": 9}, "stream": True})
    assert parsed.prompt.data == struct.pack("<2I", 1, 2**32 - 1)
    assert (parsed.cache_salt, parsed.max_output_tokens, parsed.stream) == ("tenant", 9, True)
    assert (parsed.model, parsed.model_required, parsed.model_rewritable) == (None, False, False)
    assert parsed.usage_format is UsageFormat.SGLANG
    assert parse({"input_ids": [1], "model": "m"}).model_rewritable


@pytest.mark.parametrize("ids", [None, [], [-1], [2**32], ["a"], [1.5], "text", [[1], [2]]])
def test_ids_are_required(ids: object) -> None:
    with pytest.raises(BadRequest) as caught:
        parse({"text": "x", "input_ids": ids})
    assert caught.value.message == NO_INPUT_IDS or caught.value.message.startswith("invalid generate request: ")


def test_other_refusals() -> None:
    with pytest.raises(BadRequest, match=r"sampling_params\.max_new_tokens must be an integer"):
        parse({"input_ids": [1], "sampling_params": {"max_new_tokens": -1}})
    with pytest.raises(BadRequest, match="unsupported path"):
        parse({"input_ids": [1]}, "/other")


def meta(finish: object, completion: int = 7) -> dict[str, Any]:
    counts = {"prompt_tokens": 5, "completion_tokens": completion, "cached_tokens": 2}
    return {"text": "hi", "meta_info": {"id": "x", "finish_reason": finish, **counts}}


STOP = {"type": "stop", "matched": 2}


@pytest.mark.parametrize(("finish", "usage"), [(STOP, Usage(5, 7, 12, 2)), ("length", Usage(5, 7, 12, 2)), (None, None)])
def test_usage_counts_when_the_answer_has_finished(finish: object, usage: Usage | None) -> None:
    body = json.dumps(meta(finish)).encode()
    assert read_usage_json(body, UsageFormat.SGLANG) == usage
    for filler in (b"", b'"logprobs":[' + b"1," * 100_000 + b"0],"):
        tail = JsonUsageTail(UsageFormat.SGLANG)
        tail.feed(b"{" + filler + body[1:])
        assert tail.finish() == usage


@pytest.mark.parametrize("step", [1, 7, 1000])
@pytest.mark.parametrize(("last", "usage"), [(STOP, Usage(5, 3, 8, 2)), (None, None)])
def test_usage_of_a_stream(step: int, last: object, usage: Usage | None) -> None:
    events = [meta(None, 1), meta(None, 2), meta(last, 3)]
    stream = b"".join(b"data: " + json.dumps(event).encode() + b"\n\n" for event in events) + b"data: [DONE]\n\n"
    reader = SseUsageReader(UsageFormat.SGLANG)
    for start in range(0, len(stream), step):
        reader.feed(stream[start : start + step])
    assert reader.finish() == usage
    assert reader.done and reader.events == 3
