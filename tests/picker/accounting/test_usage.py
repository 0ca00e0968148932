"""Usage out of whole bodies, and out of the ends of long ones."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from picker.accounting.usage import TAIL_BYTES, JsonUsageTail, read_usage_json
from picker.request import UsageFormat
from picker.result import Usage

OPENAI, RESPONSES, ANTHROPIC, NONE = UsageFormat.OPENAI, UsageFormat.RESPONSES, UsageFormat.ANTHROPIC, UsageFormat.NONE
DATA = Path(__file__).parents[2] / "data" / "sse"
RICH = {
    "input_tokens": 9,
    "output_tokens": 5,
    "total_tokens": 14,
    "input_tokens_details": {"cached_tokens": 4},
    "output_tokens_details": {"reasoning_tokens": 2},
}
CASES: list[tuple[UsageFormat, Any, Usage | None]] = [
    (OPENAI, {"prompt_tokens": 4, "total_tokens": 5, "completion_tokens": 1}, Usage(4, 1, 5)),
    (OPENAI, {"prompt_tokens": 4, "total_tokens": 4}, Usage(4, None, 4)),
    (OPENAI, {"prompt_tokens": 4, "completion_tokens": 1}, Usage(4, 1, 5)),
    (OPENAI, {"total_tokens": 5}, Usage(total_tokens=5)),
    (OPENAI, {"prompt_tokens": 4, "prompt_tokens_details": None, "completion_tokens_details": []}, Usage(4)),
    (OPENAI, {"prompt_tokens": 0, "completion_tokens_details": {"reasoning_tokens": 0}}, Usage(0, reasoning_tokens=0)),
    (OPENAI, RICH, Usage(9, 5, 14, 4, 2)),
    (RESPONSES, RICH, Usage(9, 5, 14, 4, 2)),
    (ANTHROPIC, {"input_tokens": 8, "output_tokens": 3}, Usage(8, 3, 11)),
    (ANTHROPIC, {"input_tokens": 8, "output_tokens": 3, "cache_read_input_tokens": 1}, Usage(9, 3, 12, 1)),
    (OPENAI, {"prompt_tokens": "4"}, None),
    (OPENAI, {"prompt_tokens": -4, "completion_tokens": 1}, Usage(None, 1)),
    (OPENAI, {"prompt_tokens": 2**31, "completion_tokens": 1}, Usage(None, 1)),
    (OPENAI, {"prompt_tokens": 10**40}, None),
    (OPENAI, {"prompt_tokens": True, "completion_tokens": 1.0}, None),
    (OPENAI, {}, None),
    (OPENAI, None, None),
    (OPENAI, [1], None),
    (NONE, {"prompt_tokens": 4}, None),
]


def tail(body: bytes, format: UsageFormat = OPENAI, step: int = 1000) -> Usage | None:
    reader = JsonUsageTail(format)
    for at in range(0, len(body), step):
        reader.feed(body[at : at + step])
        assert len(reader._tail) <= 2 * TAIL_BYTES
    return reader.finish()


@pytest.mark.parametrize(("format", "fields", "usage"), CASES)
def test_both_readers(format: UsageFormat, fields: object, usage: Usage | None) -> None:
    for after in ({}, {"kv": None, "metrics": {"usage": "usage", "x": ["}", '"']}}):
        body = json.dumps({"id": "x", "usage": fields, **after}).encode()
        assert read_usage_json(body, format) == usage
        assert tail(body, format) == usage


def test_captured_body() -> None:
    body = (DATA / "completions_body.json").read_bytes()
    assert read_usage_json(body, OPENAI) == tail(body) == tail(body, step=1) == Usage(4, 1, 5)
    for name in ("error_unknown_model", "error_too_long"):
        body = (DATA / f"{name}.json").read_bytes()
        assert read_usage_json(body, OPENAI) is tail(body) is None


@pytest.mark.parametrize(
    "body", [b"", b"no healthy upstream", b"[]", b"null", b'{"usage":', b"[" * 100_000, b'{"usage":' + b"[" * 100_000, b"\xff"]
)
def test_garbage(body: bytes) -> None:
    assert read_usage_json(body, OPENAI) is None
    assert tail(body) is None


@given(st.binary(max_size=200), st.sampled_from(list(UsageFormat)))
def test_any_bytes(noise: bytes, format: UsageFormat) -> None:
    for body in (noise, b'{"usage":{' + noise, noise + b'{"usage":{"prompt_tokens":1}}' + noise):
        read_usage_json(body, format)
        tail(body, format)


@pytest.mark.parametrize("step", [100, 1000, 65_535, 65_536, 200_000])
def test_a_long_body_is_read_from_its_end(step: int) -> None:
    body = b'{"data":[' + b"0.125," * 100_000 + b'0],"usage":{"prompt_tokens":5,"total_tokens":5}}'
    assert tail(body, step=step) == Usage(5, None, 5)


@pytest.mark.parametrize(
    ("body", "usage"),
    [
        (b'{"x":{"usage":{"prompt_tokens":1}}}', None),
        (b'{"x":[{"usage":{"prompt_tokens":1}}]}', None),
        (b'{"usage":{"prompt_tokens":2},"x":{"usage":{"prompt_tokens":1}}}', Usage(2)),
        (b'{"text":"\\"usage\\":{\\"prompt_tokens\\":1}}"}', None),
        (b'{"usage":{"prompt_tokens":1}', None),
        (b'{"usage":{"prompt_tokens":1}}\n', Usage(1)),
        (b'{"usage":{"prompt_tokens":2},"usage" : {"prompt_tokens":1}}', Usage(1)),
        (b'{"usage":{"prompt_tokens":2},"usage":null}', Usage(2)),
        (b'{"usage":{"prompt_tokens":1}},"pad":"' + b"x" * TAIL_BYTES + b'"}', None),
    ],
)
def test_only_the_top_level_counts(body: bytes, usage: Usage | None) -> None:
    assert tail(body) == usage
