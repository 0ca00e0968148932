"""Token usage as model servers report it, in one shape.

Nothing here raises: a response that cannot be read has no usage, and is passed on all the same.
"""

from __future__ import annotations

import re
from typing import Any

import msgspec

from picker.request import UsageFormat
from picker.result import Usage

# No request has more tokens than this; a larger figure is a defect of the server and would spoil every sum it enters.
MAX_TOKENS = 2**31 - 1

TAIL_BYTES = 64 * 1024
_KEY = re.compile(rb'"(?:usage|meta_info)"\s*:\s*(?=\{)')
# Strings are matched as a whole, so that brackets inside them are not seen. Possessive: an unclosed string costs one pass.
_BRACKETS = re.compile(rb'"(?:[^"\\]++|\\.)*+"|[{}\[\]]', re.DOTALL)
_MAX_CANDIDATES = 8
_SHORT_BYTES = 8 * 1024
"""A whole answer of this size is decoded sooner (1 us a KB) than its end is taken apart (5 us)."""


class Body(msgspec.Struct, gc=False):
    """A response, or the object inside an event that carries the usage."""

    usage: Any = None
    meta_info: Any = None


_BODY = msgspec.json.Decoder(Body)
_ANY = msgspec.json.Decoder()


def read_usage_json(body: bytes, format: UsageFormat) -> Usage | None:
    """The usage of a whole response body, None when it has none."""
    if format is UsageFormat.NONE:
        return None
    try:
        decoded = _BODY.decode(body)
    except (ValueError, RecursionError):
        return None
    return usage_of(decoded.meta_info if format is UsageFormat.SGLANG else decoded.usage, format)


def usage_of(fields: object, format: UsageFormat) -> Usage | None:
    """The usage in a decoded `usage` object; None when it is no object or holds nothing usable."""
    if not isinstance(fields, dict):
        return None
    read = _READERS.get(format, _read_openai)
    if format is UsageFormat.SGLANG and fields.get("finish_reason") is None:
        return None  # the figures of an answer under way
    usage = read(fields)
    return None if usage.prompt_tokens is usage.completion_tokens is usage.total_tokens is None else usage


def _read_openai(fields: dict[str, Any]) -> Usage:
    """`prompt_tokens` or `input_tokens`, `completion_tokens` or `output_tokens`: chat and Responses differ in names only."""
    prompt = _first(fields, "prompt_tokens", "input_tokens")
    completion = _first(fields, "completion_tokens", "output_tokens")
    total = count(fields.get("total_tokens"))
    return Usage(
        prompt,
        completion,
        _sum(prompt, completion) if total is None else total,
        _detail(fields, "cached_tokens", "prompt_tokens_details", "input_tokens_details"),
        _detail(fields, "reasoning_tokens", "completion_tokens_details", "output_tokens_details"),
    )


def _read_anthropic(fields: dict[str, Any]) -> Usage:
    """`input_tokens` leaves out what was read from or written to the cache; both are part of the prompt."""
    given = count(fields.get("input_tokens"))
    cached = count(fields.get("cache_read_input_tokens"))
    created = count(fields.get("cache_creation_input_tokens"))
    prompt = None if given is None else given + (cached or 0) + (created or 0)
    completion = count(fields.get("output_tokens"))
    return Usage(prompt, completion, _sum(prompt, completion), cached)


def _read_sglang(fields: dict[str, Any]) -> Usage:
    """`meta_info` of SGLang's own API."""
    prompt, completion = count(fields.get("prompt_tokens")), count(fields.get("completion_tokens"))
    return Usage(prompt, completion, _sum(prompt, completion), count(fields.get("cached_tokens")))


_READERS = {UsageFormat.ANTHROPIC: _read_anthropic, UsageFormat.SGLANG: _read_sglang}


def count(value: object) -> int | None:
    """`value` if it can be a number of tokens."""
    return value if type(value) is int and 0 <= value <= MAX_TOKENS else None


def _sum(prompt: int | None, completion: int | None) -> int | None:
    return None if prompt is None or completion is None else prompt + completion


def _first(fields: dict[str, Any], name: str, other: str) -> int | None:
    value = count(fields.get(name))
    return count(fields.get(other)) if value is None else value


def _detail(fields: dict[str, Any], name: str, *groups: str) -> int | None:
    for group in groups:
        details = fields.get(group)
        if isinstance(details, dict):
            return count(details.get(name))
    return None


class JsonUsageTail:
    """The usage of a body that is passed on without being kept: only its last 64 KiB are looked at.

    Model servers write `usage` near the end. A key counts as top level when after its object only the outermost one is left to
    close, which no text inside a string can imitate: quotes are escaped there.
    """

    __slots__ = ("_format", "_tail", "_whole")

    def __init__(self, format: UsageFormat) -> None:
        self._format = format
        self._tail = bytearray()
        self._whole = True

    def feed(self, chunk: bytes) -> None:
        """The next bytes of the body."""
        if self._format is UsageFormat.NONE:
            return
        tail = self._tail
        if len(chunk) >= TAIL_BYTES:
            self._whole = False
            tail[:] = memoryview(chunk)[-TAIL_BYTES:]
            return
        tail += chunk
        # Cut only every 64 KiB, so that each byte is moved once.
        if len(tail) >= 2 * TAIL_BYTES:
            self._whole = False
            del tail[:-TAIL_BYTES]

    def finish(self) -> Usage | None:
        """The usage, once the body has ended."""
        tail, self._tail = bytes(self._tail[-TAIL_BYTES:]), bytearray()
        if self._whole and len(tail) <= _SHORT_BYTES and (usage := read_usage_json(tail, self._format)) is not None:
            return usage
        return last_usage(tail, self._format)


def last_usage(text: bytes, format: UsageFormat) -> Usage | None:
    """The last top-level `usage` of a JSON object of which only the end is known, or that something stands around."""
    end = len(text)
    key = b'"meta_info"' if format is UsageFormat.SGLANG else b'"usage"'
    for _ in range(_MAX_CANDIDATES):
        start = text.rfind(key, 0, end)
        if start < 0:
            return None
        end = start
        match = _KEY.match(text, start)
        if match is not None:
            found = _top_level_object(text, match.end())
            if found is not None:
                return usage_of(found, format)
    return None


def _top_level_object(text: bytes, start: int) -> object | None:
    """The object that starts at `start`, None when it is cut off, invalid, or not directly inside the outermost one."""
    depth = 0
    stop = -1
    for match in _BRACKETS.finditer(text, start):
        token = match[0]
        if token in (b"{", b"["):
            depth += 1
        elif token in (b"}", b"]"):
            depth -= 1
            if depth == 0 and stop < 0:
                stop = match.end()
            if depth < -1:
                return None
    if depth != -1 or stop < 0:
        return None
    try:
        found: object = _ANY.decode(text[start:stop])
    except (ValueError, RecursionError):
        return None
    return found
