"""What a call of vLLM's gRPC API asks for."""

from __future__ import annotations

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from picker.errors import BadRequest
from picker.parsing.vllm_grpc import NO_EMBED_INPUT, NO_INPUT, VllmGrpcParser
from picker.plugin import NoParameters
from picker.request import ParsedBody, UsageFormat
from tests.picker.world import World, config
from tests.support.vllm_grpc import EMBED, GENERATE, embed, field, frame, generate, packed

TOO_MANY = "invalid generate request: sampling_params.max_tokens must be an integer from 0 to 2147483647"
PARSER = VllmGrpcParser("grpc", NoParameters(), None)  # type: ignore[arg-type]


def parse(path: str, body: bytes) -> ParsedBody:
    return PARSER.parse(path, {}, body)


def ids(*values: int) -> bytes:
    return struct.pack(f"<{len(values)}I", *values)


@pytest.mark.parametrize(
    ("path", "body", "prompt"),
    [
        (GENERATE, generate([1, 300, 2**32 - 1]), ids(1, 300, 2**32 - 1)),
        (GENERATE, generate(text="h\u00e9"), "h\u00e9".encode()),
        (GENERATE, frame(field(2, field(2, 5) + packed(2, [6, 7]) + field(2, 8))), ids(5, 6, 7, 8)),
        (GENERATE, frame(field(2, packed(2, [1])) + field(3, "last wins")), b"last wins"),
        (GENERATE, frame(field(99, b"unknown") + field(3, "x")), b"x"),
        ("/prefix" + GENERATE, generate([9]), ids(9)),
        (EMBED, embed([4, 5]), ids(4, 5)),
    ],
)
def test_prompt(path: str, body: bytes, prompt: bytes) -> None:
    parsed = parse(path, body)
    assert parsed.prompt.data == prompt
    assert (parsed.model, parsed.model_required, parsed.model_rewritable, parsed.skip_response) == (None, False, False, False)


def test_the_rest_of_generate() -> None:
    plain, full = parse(GENERATE, generate([1])), parse(GENERATE, generate([1], max_tokens=77, stream=True))
    assert (plain.stream, plain.max_output_tokens, plain.usage_format) == (False, None, UsageFormat.VLLM_GENERATE)
    assert (full.stream, full.max_output_tokens) == (True, 77)
    assert parse(EMBED, embed([1])).usage_format is UsageFormat.VLLM_EMBED


@pytest.mark.parametrize("method", ["HealthCheck", "Abort", "GetModelInfo", "SubscribeKvEvents", "NotYetInvented"])
def test_other_methods_are_passed_on_unread(method: str) -> None:
    parsed = parse(f"/vllm.grpc.engine.VllmEngine/{method}", b"anything")
    assert parsed.skip_response and not parsed.model_required and not parsed.model_rewritable


@pytest.mark.parametrize(
    ("path", "body", "message"),
    [
        (GENERATE, frame(b""), NO_INPUT),
        (GENERATE, frame(field(2, field(1, "only text for people"))), NO_INPUT),
        (EMBED, frame(field(1, "id")), NO_EMBED_INPUT),
        (GENERATE, frame(b"x", 1), "invalid generate request: compressed gRPC messages are not supported"),
        (EMBED, frame(b"x", 1), "invalid embed request: compressed gRPC messages are not supported"),
        (GENERATE, generate([1])[:-1], "invalid generate request: a gRPC message of 35 bytes is cut off after 34"),
        (GENERATE, generate([1]) * 2, "invalid generate request: this call takes one gRPC message, more follows it"),
        (GENERATE, frame(b"\xff"), "invalid generate request: a number is cut off"),
        (GENERATE, frame(field(3, b"\xff")), "invalid generate request: text is not UTF-8"),
        (GENERATE, frame(field(2, 1)), "invalid generate request: tokenized is a number"),
        (GENERATE, frame(field(5, b"1")), "invalid generate request: stream is not a number"),
        (GENERATE, generate([1], max_tokens=2**31), TOO_MANY),
        ("/elsewhere", b"", "unsupported path for vllmgrpc-parser: /elsewhere"),
    ],
)  # fmt: skip
def test_refusals(path: str, body: bytes, message: str) -> None:
    with pytest.raises(BadRequest) as caught:
        parse(path, body)
    assert caught.value.message == message


@given(st.binary(max_size=100), st.booleans())
def test_any_bytes(body: bytes, framed: bool) -> None:
    for path in (GENERATE, EMBED):
        try:
            parse(path, frame(body) if framed else body)
        except BadRequest:
            pass


def test_the_parser_is_used_when_it_is_named() -> None:
    parsers = World(config=config("vllmgrpc-parser")).director.stages.parsers
    assert [parser.type for parser in parsers.parsers] == ["vllmgrpc-parser"]
    assert parsers.find("/vllm.grpc.engine.VllmEngine/Whatever") is parsers.parsers[0]
    assert parsers.find("/other.Service/Generate") is None
