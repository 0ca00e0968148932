"""Which parser a path finds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import pytest

from picker.parsing.paths import ParserSet, SuffixTable, request_path
from picker.request import ParsedBody
from tests.support.parsers import default_parsers


class Named:
    """A parser that is only looked for."""

    def __init__(self, name: str, *paths: str) -> None:
        self.type = name
        self.paths: Sequence[str] = paths

    def parse(self, path: str, headers: Mapping[str, str], body: bytes) -> ParsedBody:
        return ParsedBody(model=self.type)


@pytest.mark.parametrize(
    ("path", "found"),
    [
        ("/v1/chat/completions", "openai-parser"),
        ("/v1/chat/completions/", "openai-parser"),
        ("/v1/chat/completions?a=/v1/messages", "openai-parser"),
        ("/v1/chat/completions#/tokenize", "openai-parser"),
        ("/deployments/x/v1/completions", "openai-parser"),
        ("completions", "openai-parser"),
        ("https://host/v1/embeddings", "openai-parser"),
        ("/v1/completions/render", "openai-parser"),
        ("/v1/audio/transcriptions", "openai-parser"),
        ("/v1/messages", "anthropic-parser"),
        ("/v1/messages/count_tokens", "anthropic-parser"),
        ("/inference/v1/generate", "vllmhttp-parser"),
        ("/tokenize", "vllmhttp-parser"),
        ("/v1/rerank", "vllmhttp-parser"),
        ("/v2/rerank", "vllmhttp-parser"),
        ("/v1/mycompletions", "passthrough-parser"),
        ("/generate", "passthrough-parser"),
        ("/v1/models", "passthrough-parser"),
        ("/", "passthrough-parser"),
        ("", "passthrough-parser"),
        ("?", "passthrough-parser"),
        ("/" * 60_000, "passthrough-parser"),
        ("/x" * 60_000 + "/chat/completions", "openai-parser"),
    ],
)
def test_default_set(path: str, found: str) -> None:
    parsers = default_parsers()
    for _ in range(2):  # searched, then remembered
        parser = parsers.find(path)
        assert getattr(parser, "type", None) == found


def test_order_of_the_default_set() -> None:
    assert [getattr(parser, "type", None) for parser in default_parsers().parsers] == [
        "openai-parser",
        "anthropic-parser",
        "vllmhttp-parser",
        "passthrough-parser",
    ]


def test_longest_suffix_wins_whatever_the_order() -> None:
    short, long = Named("short", "completions"), Named("long", "/chat/completions")
    for order in ((short, long), (long, short)):
        assert ParserSet(order).find("/v1/chat/completions") is long
        assert ParserSet(order).find("/v1/completions") is short


def test_the_first_of_two_parsers_has_the_suffix() -> None:
    first, second = Named("first", "a"), Named("second", "a", "b")
    assert ParserSet((first, second)).find("/a") is first
    assert ParserSet((first, second)).find("/b") is second


def test_later_fallbacks_are_ignored_and_none_is_possible() -> None:
    first, second = Named("first"), Named("second")
    assert ParserSet((first, Named("a", "a"), second)).find("/x") is first
    assert ParserSet((Named("a", "a"),)).find("/x") is None
    assert ParserSet(()).find("/x") is None


def test_the_cache_is_bounded() -> None:
    table = SuffixTable([("a", 1)])
    for number in range(5_000):
        assert table.find(f"/{number}/a") == 1
    table.find("/" + "x" * 10_000)
    assert len(table._cache) <= 512
    assert max(map(len, table._cache)) <= 256


@pytest.mark.parametrize(
    ("headers", "path"),
    [
        ({":path": "/a", "x-original-path": "/b", "x-forwarded-path": "/c"}, "/a"),
        ({"x-original-path": "/b", "x-forwarded-path": "/c"}, "/b"),
        ({":path": "", "x-forwarded-path": "/c"}, "/c"),
        ({}, "/v1/completions"),
    ],
)
def test_request_path(headers: dict[str, str], path: str) -> None:
    assert request_path(headers) == path


def test_a_star_stands_for_any_last_segment_that_is_not_named() -> None:
    table = SuffixTable([("a.S/One", 1), ("a.S/*", 2)])
    found = [table.find(path) for path in ("/a.S/One", "/a.S/Two", "/x/a.S/Two", "/b.S/Two", "/a.S", "/One", "/a.S/Two/Three")]
    assert found == [1, 2, 2, None, None, None, None]
