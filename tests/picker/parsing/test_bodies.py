"""What each API's body says, and the words with which it is refused."""

from __future__ import annotations

import json
import struct
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from picker.errors import BadRequest
from picker.request import ParsedBody, UsageFormat
from tests.support.parsers import default_parsers

PARSERS = default_parsers()
CHAT, COMPLETIONS, RESPONSES, MESSAGES = "/v1/chat/completions", "/v1/completions", "/v1/responses", "/v1/messages"
GENERATE = "/inference/v1/generate"


def parse(path: str, body: object, **headers: str) -> ParsedBody:
    """`body` is bytes, or something to write as JSON. Header names take `_` for `-`."""
    parser = PARSERS.find(path)
    assert parser is not None
    raw = body if isinstance(body, bytes) else json.dumps(body).encode()
    return parser.parse(path, {name.replace("_", "-"): value for name, value in headers.items()}, raw)


def refusal(path: str, body: object) -> str:
    with pytest.raises(BadRequest) as caught:
        parse(path, body)
    return caught.value.message


def chat(*contents: Any, **more: Any) -> dict[str, Any]:
    return {"model": "m", "messages": [{"role": "user", "content": content} for content in contents], **more}


def ids(*values: int) -> bytes:
    return struct.pack(f"<{len(values)}I", *values)


@pytest.mark.parametrize(
    ("path", "body", "prompt"),
    [
        (CHAT, chat("hi", "you"), b"userhiuseryou"),
        (CHAT, chat("h\u00e9\U0001f600"), "userh\u00e9\U0001f600".encode()),
        (CHAT, chat(None), b"user"),
        (CHAT, chat([]), b"user"),
        (CHAT, chat([{"type": "text", "text": "a"}, {"type": "text", "text": "b"}, "c"]), b"userabc"),
        (CHAT, b'{"tools":[{"a": 1}],"messages":[{"role":"user","content":"x"}]}', b'[{"a": 1}]userx'),
        (CHAT, chat("x", tools=None), b"userx"),
        (CHAT, {"messages": [{"content": "x"}]}, b"x"),
        (CHAT + "/render", chat("x"), b"userx"),
        (COMPLETIONS, {"prompt": "abc"}, b"abc"),
        (COMPLETIONS, {"prompt": ""}, b""),
        (COMPLETIONS, {"prompt": ["ab", "c"]}, b"abc"),
        (COMPLETIONS, {"prompt": [1, 2**32 - 1]}, ids(1, 2**32 - 1)),
        (COMPLETIONS, {"prompt": [[1, 2], [3]]}, ids(1, 2, 3)),
        (COMPLETIONS, {"prompt": [7, "a", [8]]}, ids(7) + b"a" + ids(8)),
        (COMPLETIONS, {"prompt": []}, b""),
        (COMPLETIONS + "/render", {"prompt": "abc"}, b"abc"),
        ("/v1/embeddings", {"input": ["a", "b"]}, b"ab"),
        ("/v1/images/generations", {"prompt": "a cat"}, b"a cat"),
        (RESPONSES, {"input": "hi", "instructions": "be"}, b"behi"),
        (RESPONSES, b'{"tools":[1],"instructions":"be","input":[{"role":"user","content":"a"}]}', b'[1]be{"role":"user","content":"a"}'),
        ("/v1/conversations", b'{"items":[{"a":1},{"b":2}]}', b'{"a":1}{"b":2}'),
        (MESSAGES, {"system": "S", **chat("x")}, b"Suserx"),
        (MESSAGES, {"system": [{"type": "text", "text": "S"}], **chat([{"type": "text", "text": "x"}])}, b"Suserx"),
        (MESSAGES, b'{"messages":[{"role":"user","content":[{"type":"tool_result","content":"r"}]}]}', b'user"r"'),
        (GENERATE, {"token_ids": [5, 6]}, ids(5, 6)),
        ("/tokenize", {"prompt": "abc"}, b"abc"),
        ("/tokenize", {"messages": [{"role": "user", "content": "x"}]}, b"userx"),
        ("/detokenize", {"tokens": [1]}, ids(1)),
        ("/score", {"text_1": "a", "text_2": ["b"]}, b'"a"["b"]'),
        ("/v1/rerank", {"query": "q", "documents": ["d"]}, b'"q"["d"]'),
        ("/anything", b"\x00raw", b""),
    ],
)
def test_canonical_prompt(path: str, body: object, prompt: bytes) -> None:
    found = parse(path, body).prompt
    assert (found.data, found.extra_tokens) == (prompt, 0)


def test_a_longer_conversation_starts_with_the_shorter_one() -> None:
    first = {"role": "user", "content": [{"type": "input_image", "image_url": "data:image/png;base64,AAAA"}]}
    second = {"role": "assistant", "content": "ok"}
    short = parse(RESPONSES, {"input": [first]}).prompt.data
    assert parse(RESPONSES, {"input": [first, second]}).prompt.data.startswith(short)


@pytest.mark.parametrize(
    ("path", "body", "expected"),
    [
        (CHAT, chat("x", max_tokens=5), 5),
        (CHAT, chat("x", max_tokens=5, max_completion_tokens=7), 7),
        (CHAT, chat("x", max_tokens=5, max_completion_tokens=0), 0),
        (CHAT, chat("x", max_tokens=5, max_completion_tokens=None), 5),
        (CHAT, chat("x", max_tokens=100.0), 100),
        (CHAT, chat("x"), None),
        (COMPLETIONS, {"prompt": "a", "max_tokens": 3}, 3),
        (RESPONSES, {"input": "a", "max_output_tokens": 4, "max_tokens": 9}, 4),
        (MESSAGES, chat("x", max_tokens=2**31 - 1), 2**31 - 1),
        (GENERATE, {"token_ids": [1], "sampling_params": {"max_tokens": 6}}, 6),
        (GENERATE, {"token_ids": [1], "sampling_params": None}, None),
    ],
)
def test_max_output_tokens(path: str, body: object, expected: int | None) -> None:
    assert parse(path, body).max_output_tokens == expected


@pytest.mark.parametrize("value", ["5", -1, 2**31, 10**30, 1.5, True, [1], {}])
@pytest.mark.parametrize(
    ("path", "body", "field", "what"),
    [
        (CHAT, chat("x"), "max_tokens", "chat completions"),
        (CHAT, chat("x"), "max_completion_tokens", "chat completions"),
        (COMPLETIONS, {"prompt": "a"}, "max_tokens", "completions"),
        (RESPONSES, {"input": "a"}, "max_output_tokens", "responses"),
        (MESSAGES, chat("x"), "max_tokens", "messages"),
    ],
)
def test_a_bad_limit_is_refused(path: str, body: dict[str, Any], field: str, what: str, value: object) -> None:
    assert refusal(path, {**body, field: value}) == f"invalid {what} request: {field} must be an integer from 0 to 2147483647"


@pytest.mark.parametrize(
    ("path", "body", "text"),
    [
        (CHAT, {}, "invalid chat completions request: must have valid messages field"),
        (CHAT, b"null", "invalid chat completions request: must have valid messages field"),
        (CHAT, {"messages": []}, "invalid chat completions request: must have valid messages field"),
        (CHAT, {"messages": "x"}, "invalid chat completions request: must have valid messages field"),
        (CHAT, {"messages": None}, "invalid chat completions request: must have valid messages field"),
        (CHAT, {"messages": [1]}, "invalid chat completions request: Expected `object`, got `int` - at `$.messages[0]`"),
        (CHAT, {"messages": [{"role": 1}]}, "invalid chat completions request: Expected `str | null`, got `int` - at `$.messages[0].role`"),
        (
            CHAT,
            chat([{"type": "text", "text": 1}]),
            "invalid chat completions request: Expected `str | null`, got `int` - at `$.messages[0].content[0].text`",
        ),
        (CHAT, chat("x", cache_salt=1), "invalid chat completions request: Expected `str | null`, got `int` - at `$.cache_salt`"),
        (COMPLETIONS, {}, "invalid completions request: must have prompt field"),
        (COMPLETIONS, {"prompt": {}}, "invalid completions request: must have prompt field"),
        (COMPLETIONS, {"prompt": [1, -1]}, "invalid completions request: Expected `int` >= 0 - at `$.prompt[1]`"),
        (COMPLETIONS, {"prompt": [2**32]}, "invalid completions request: Expected `int` <= 4294967295 - at `$.prompt[0]`"),
        ("/v1/embeddings", {}, "invalid embeddings request: must have input field"),
        (RESPONSES, {}, "invalid responses request: must have input field"),
        ("/v1/conversations", {}, "invalid conversations request: must have items field"),
        ("/v1/images/generations", {}, "invalid images generations request: must have prompt field"),
        (MESSAGES, {}, "invalid messages request: must have at least one message"),
        (MESSAGES, {"messages": []}, "invalid messages request: must have at least one message"),
        (GENERATE, {}, "invalid generate request: must have token_ids field"),
        ("/tokenize", {}, "invalid tokenize request: must have prompt or messages field"),
        ("/detokenize", {}, "invalid detokenize request: must have tokens field"),
        ("/score", {"text_1": "a"}, "invalid score request: must have two inputs"),
        ("/rerank", {"query": "a"}, "invalid rerank request: must have query and documents fields"),
        (
            COMPLETIONS,
            b"no healthy upstream",
            "error unmarshaling request bodyMap: invalid character 'o' in literal null (expecting 'u')",
        ),
        (CHAT, b"", "error unmarshaling request bodyMap: unexpected end of JSON input"),
        (CHAT, b"[]", "error unmarshaling request bodyMap: json: cannot unmarshal array into Go value of type map[string]interface {}"),
        (CHAT, b'{"messages":1} x', "error unmarshaling request bodyMap: invalid character 'x' after top-level value"),
        (CHAT, b'{"x":' + b"[" * 5000 + b"]" * 5000 + b"}", "error unmarshaling request bodyMap: JSON is nested too deeply"),
        (CHAT, b'{"model":"\\ud800"}', "error unmarshaling request bodyMap: a \\u escape is half of a surrogate pair"),
        (CHAT, b'{"x":"\\udc00 and more text"}', "error unmarshaling request bodyMap: a \\u escape is half of a surrogate pair"),
    ],
)
def test_refusals(path: str, body: object, text: str) -> None:
    assert refusal(path, body) == text


def test_invalid_utf8_in_a_field_that_is_read() -> None:
    assert refusal(CHAT, b'{"model":"\xff"}').startswith("error unmarshaling request bodyMap: 'utf-8' codec")


def test_a_parser_asked_for_a_path_that_is_not_its_own() -> None:
    for path in (CHAT, MESSAGES, GENERATE):
        parser = PARSERS.find(path)
        assert parser is not None
        with pytest.raises(BadRequest, match="unsupported path"):
            parser.parse("/other", {}, b"{}")


@pytest.mark.parametrize(("model", "expected"), [("m", "m"), (1, None), (None, None), ("", None), ({"a": 1}, None), ([], None)])
@pytest.mark.parametrize("path", [CHAT, COMPLETIONS, MESSAGES])
def test_model(path: str, model: object, expected: str | None) -> None:
    body = parse(path, {"model": model, "prompt": "x", "messages": [{"role": "user"}]})
    assert body.model == expected
    assert body.model_required and body.model_rewritable


@pytest.mark.parametrize(
    ("more", "stream", "include_usage"),
    [
        ({}, False, False),
        ({"stream": None, "stream_options": None}, False, False),
        ({"stream": True}, True, False),
        ({"stream": True, "stream_options": {"include_usage": True}}, True, True),
        ({"stream": True, "stream_options": {"include_usage": False}}, True, False),
        ({"stream": "yes", "stream_options": []}, False, False),
    ],
)
def test_stream(more: dict[str, Any], stream: bool, include_usage: bool) -> None:
    body = parse(CHAT, chat("x", **more))
    assert (body.stream, body.include_usage) == (stream, include_usage)


def test_cache_salt_and_the_last_of_duplicate_keys() -> None:
    body = parse(CHAT, b'{"model":"a","cache_salt":"s","messages":[{"role":"user","content":"x"}],"model":"b"}')
    assert (body.model, body.cache_salt) == ("b", "s")
    assert parse(CHAT, chat("x", cache_salt=None)).cache_salt == ""


@pytest.mark.parametrize(
    ("path", "body", "expected"),
    [
        (CHAT, chat("x"), UsageFormat.OPENAI),
        (CHAT + "/render", chat("x"), UsageFormat.NONE),
        (COMPLETIONS, {"prompt": "x"}, UsageFormat.OPENAI),
        ("/v1/embeddings", {"input": "x"}, UsageFormat.OPENAI),
        (RESPONSES, {"input": "x"}, UsageFormat.RESPONSES),
        (MESSAGES, chat("x"), UsageFormat.ANTHROPIC),
        ("/tokenize", {"prompt": "x"}, UsageFormat.NONE),
        ("/anything", b"", UsageFormat.NONE),
    ],
)
def test_usage_format(path: str, body: object, expected: UsageFormat) -> None:
    assert parse(path, body).usage_format is expected


def test_what_needs_no_model() -> None:
    assert not parse("/v1/conversations", {"items": []}).model_required
    assert not parse("/tokenize", {"prompt": "x"}).model_required
    opaque = parse("/anything", b"passthrough-parser")
    assert (opaque.model, opaque.model_required, opaque.model_rewritable) == (None, False, False)


def test_count_tokens_is_passed_on() -> None:
    body = parse("/v1/messages/count_tokens", {"model": "m"})
    assert (body.model, body.skip_response, body.model_required, body.model_rewritable) == ("m", True, False, True)
    assert parse("/v1/messages/count_tokens", b"garbage").model is None


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(st.sampled_from(("type", "text", "content", "role", "image_url", "data", "x")), inner)
    ),
    max_leaves=12,
)
KEYS = (
    "model",
    "messages",
    "prompt",
    "input",
    "items",
    "tools",
    "max_tokens",
    "token_ids",
    "stream_options",
    "query",
    "documents",
    "system",
)
PATHS = sorted({path for parser in PARSERS.parsers for path in parser.paths} | {"other"})


@given(
    st.sampled_from(PATHS),
    st.binary(max_size=60) | st.dictionaries(st.sampled_from(KEYS), JSON).map(lambda fields: json.dumps(fields).encode()),
)
def test_nothing_but_bad_request(path: str, body: bytes) -> None:
    parser = PARSERS.find(path)
    assert parser is not None
    for content_type in ("application/json", "multipart/form-data; boundary=x"):
        try:
            parsed = parser.parse(path, {"content-type": content_type}, body)
        except BadRequest as error:
            assert error.message.isprintable() or "\n" not in error.message
        else:
            parsed.prompt.block_hashes(16, (parsed.model or "") + parsed.cache_salt, 8)


@given(st.sampled_from(PATHS), st.integers(0, 200), st.binary(max_size=3))
def test_damaged_bodies(path: str, at: int, piece: bytes) -> None:
    body = json.dumps(
        {**chat("x", [{"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}}]), "prompt": [1], "input": "\u00e9"}
    )
    parser = PARSERS.find(path)
    assert parser is not None
    try:
        parser.parse(path, {}, body[:at].encode() + piece + body[at:].encode())
    except BadRequest:
        pass
