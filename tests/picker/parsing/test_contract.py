"""Section 1.9 of the endpoint-picker contract as a table: one row for each path of the default parsers."""

from __future__ import annotations

import json
from typing import Any, NamedTuple

import pytest

from picker.accounting.usage import read_usage_json
from picker.errors import BadRequest
from picker.parsing.passthrough import PassthroughParser
from picker.request import ParsedBody, UsageFormat
from picker.result import Usage
from tests.support.parsers import default_parsers

PARSERS = default_parsers()
TURN = [{"role": "user", "content": "x"}]


class Row(NamedTuple):
    """`required` is the field a request cannot do without, `given` what it may hold; `limits` are in order of precedence."""

    path: str
    parser: str
    required: str
    given: list[Any]
    missing: str
    limits: tuple[str, ...] = ()
    usage: UsageFormat = UsageFormat.OPENAI


TEXTS = ["x", ["x", "y"], [1, 2]]
ROWS = [
    Row("chat/completions", "openai-parser", "messages", [TURN], "invalid chat completions request: must have valid messages field",
        ("max_completion_tokens", "max_tokens")),
    Row("completions", "openai-parser", "prompt", TEXTS, "invalid completions request: must have prompt field", ("max_tokens",)),
    Row("embeddings", "openai-parser", "input", TEXTS, "invalid embeddings request: must have input field"),
    Row("responses", "openai-parser", "input", ["x", TURN], "invalid responses request: must have input field", ("max_output_tokens",),
        UsageFormat.RESPONSES),
    Row("conversations", "openai-parser", "items", [TURN], "invalid conversations request: must have items field", (), UsageFormat.NONE),
    Row("chat/completions/render", "openai-parser", "messages", [TURN], "invalid chat completions request: must have valid messages field",
        ("max_completion_tokens", "max_tokens"), UsageFormat.NONE),
    Row("completions/render", "openai-parser", "prompt", TEXTS, "invalid completions request: must have prompt field", ("max_tokens",),
        UsageFormat.NONE),
    Row("images/generations", "openai-parser", "prompt", ["x"], "invalid images generations request: must have prompt field"),
    Row("messages", "anthropic-parser", "messages", [TURN], "invalid messages request: must have at least one message", ("max_tokens",),
        UsageFormat.ANTHROPIC),
    Row("inference/v1/generate", "vllmhttp-parser", "token_ids", [[1, 2]], "invalid generate request: must have token_ids field",
        ("sampling_params.max_tokens",)),
]  # fmt: skip
PREFIXES = ("/", "/v1/", "/some/prefix/v1/")
EVERY = pytest.mark.parametrize("row", ROWS, ids=[row.path for row in ROWS])


def parse(path: str, body: object) -> ParsedBody:
    parser = PARSERS.find(path)
    assert parser is not None
    return parser.parse(path, {}, json.dumps(body).encode())


def request(row: Row, **more: Any) -> dict[str, Any]:
    return {"model": "m", row.required: row.given[0], **more}


def with_limit(field: str, value: int) -> dict[str, Any]:
    group, _, name = field.rpartition(".")
    return {group: {name: value}} if group else {name: value}


@EVERY
@pytest.mark.parametrize("prefix", PREFIXES)
def test_the_parser_of_a_path(row: Row, prefix: str) -> None:
    assert getattr(PARSERS.find(prefix + row.path), "type", None) == row.parser


@EVERY
def test_what_is_required(row: Row) -> None:
    for bad in ({"model": "m"}, {"model": "m", row.required: None}, {"model": "m", row.required: 5}):
        with pytest.raises(BadRequest) as caught:
            parse("/" + row.path, bad)
        assert caught.value.message == row.missing, bad
    for good in row.given:
        found = parse("/" + row.path, {"model": "m", row.required: good})
        assert found.model == "m" and found.prompt.data


@EVERY
def test_cache_salt(row: Row) -> None:
    assert parse("/" + row.path, request(row, cache_salt="s")).cache_salt == "s"
    assert parse("/" + row.path, request(row)).cache_salt == ""


@EVERY
def test_the_limit_of_output_tokens(row: Row) -> None:
    assert parse("/" + row.path, request(row)).max_output_tokens is None
    fields = {key: value for i, field in enumerate(row.limits) for key, value in with_limit(field, i + 1).items()}
    # The first wins, and each that is left counts when those before it are gone.
    for i, field in enumerate(row.limits):
        assert parse("/" + row.path, request(row, **fields)).max_output_tokens == i + 1
        del fields[field.partition(".")[0]]
    others = {"max_tokens", "max_completion_tokens", "max_output_tokens"} - {*row.limits}
    assert parse("/" + row.path, request(row, **dict.fromkeys(others, 9))).max_output_tokens is None


@EVERY
def test_how_usage_is_written(row: Row) -> None:
    found = parse("/" + row.path, request(row))
    assert (found.usage_format, found.skip_response) == (row.usage, False)


@pytest.mark.parametrize("format", [UsageFormat.OPENAI, UsageFormat.RESPONSES])
@pytest.mark.parametrize("names", [("prompt", "completion"), ("input", "output")])
def test_usage_has_two_sets_of_names(format: UsageFormat, names: tuple[str, str]) -> None:
    given, made = names
    usage = {f"{given}_tokens": 7, f"{made}_tokens": 3, "total_tokens": 10, f"{given}_tokens_details": {"cached_tokens": 4}}
    assert read_usage_json(json.dumps({"usage": usage}).encode(), format) == Usage(7, 3, 10, 4)


@pytest.mark.parametrize("prefix", PREFIXES)
def test_count_tokens_is_raw_and_its_answer_skipped(prefix: str) -> None:
    found = PARSERS.find(f"{prefix}messages/count_tokens")
    assert found is not None and getattr(found, "type", None) == "anthropic-parser"
    body = found.parse("/v1/messages/count_tokens", {}, b"no JSON")
    assert (body.skip_response, body.model_required, body.prompt.data) == (True, False, b"")


@pytest.mark.parametrize("path", ["/", "/v1/models", "/v1/chat", "/v1/chat/completions/else", "/v1/xcompletions", "/x"])
def test_every_other_path_passes_through(path: str) -> None:
    found = PARSERS.find(path)
    assert isinstance(found, PassthroughParser)
    body = found.parse(path, {}, b"\xff raw")
    assert (body.model, body.model_required, body.prompt.data, body.usage_format) == (None, False, b"", UsageFormat.NONE)


def test_protocols() -> None:
    protocols = {getattr(found, "type", ""): found.protocols for row in ROWS if (found := PARSERS.find("/" + row.path)) is not None}  # type: ignore[attr-defined]
    assert protocols == {"openai-parser": ("http", "h2c"), "anthropic-parser": ("http",), "vllmhttp-parser": ("http",)}
    assert PassthroughParser.protocols == ("http", "h2c")
