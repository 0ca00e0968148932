"""Which parser reads a request: the one that names the longest suffix of its path.

Suffixes match whole segments only (`completions` is no suffix of `/v1/mycompletions`); query, fragment and trailing slashes do not
count. Headers come from the endpoint-picker contract, section 1.6.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Generic, TypeVar

from picker.plugin import Parser

T = TypeVar("T")

DEFAULT_PATH = "/v1/completions"
# Paths are chosen by clients: neither their number nor their length may grow the cache without bound.
_CACHE_ENTRIES = 512
_CACHE_PATH_CHARS = 256
_ANY = "*"


class SuffixTable(Generic[T]):
    """A mapping from path suffix to value, asked with whole paths. The first value given for a suffix stays.

    A suffix of several segments may end in `*`, for any last segment that no suffix of the same length names: the other methods of a
    gRPC service.
    """

    __slots__ = ("_cache", "_depth", "_values", "_wild")

    def __init__(self, pairs: Iterable[tuple[str, T]]) -> None:
        self._values: dict[str, T] = {}
        for suffix, value in pairs:
            self._values.setdefault(suffix.strip("/"), value)
        self._wild = any(suffix.endswith(f"/{_ANY}") for suffix in self._values)
        self._depth = max((suffix.count("/") + 1 for suffix in self._values), default=0)
        self._cache: dict[str, T | None] = {}

    def find(self, path: str) -> T | None:
        """The value of the longest suffix that `path` ends in, or None."""
        try:
            return self._cache[path]
        except KeyError:
            pass
        value = self._search(path)
        if len(path) <= _CACHE_PATH_CHARS:
            if len(self._cache) >= _CACHE_ENTRIES:
                self._cache.clear()
            self._cache[path] = value
        return value

    def _search(self, path: str) -> T | None:
        plain = path.partition("?")[0].partition("#")[0].rstrip("/")
        # Only as many segments as the longest suffix has are cut out, so that a path of ten thousand slashes costs no more.
        segments = plain.rsplit("/", self._depth)[-self._depth :] if self._depth else []
        for first in range(len(segments)):
            value = self._values.get("/".join(segments[first:]))
            if value is None and self._wild:
                value = self._values.get("/".join([*segments[first:-1], _ANY]))
            if value is not None:
                return value
        return None


class ParserSet:
    """Parsers in order of preference: of two that name the same suffix, the earlier one has it."""

    __slots__ = ("_fallback", "_table", "parsers")

    def __init__(self, parsers: Iterable[Parser]) -> None:
        self.parsers: tuple[Parser, ...] = tuple(parsers)
        self._table = SuffixTable((path, parser) for parser in self.parsers for path in parser.paths)
        self._fallback = next((parser for parser in self.parsers if not parser.paths), None)

    def find(self, path: str) -> Parser | None:
        """The parser for `path`; None when no suffix matches and there is no fallback."""
        found = self._table.find(path)
        return self._fallback if found is None else found


def request_path(headers: Mapping[str, str]) -> str:
    """The path that decides about the parser. `headers` are lower-cased."""
    return headers.get(":path") or headers.get("x-original-path") or headers.get("x-forwarded-path") or DEFAULT_PATH
