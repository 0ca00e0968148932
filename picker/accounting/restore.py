"""The model name that the client asked for, put back into the response.

The patterns are those of the reference picker: `"model":"<target>"` with and without one space. Inside JSON text the quotes of
these patterns would be escaped, so that only keys and values of that form are touched.
"""

from __future__ import annotations

import re

import msgspec


class ModelRestorer:
    """Replaces the target model's name by the original one in a response that comes in pieces.

    Each piece is answered with all that is certain: at most the bytes of an unfinished pattern are held back. What was replaced is
    not looked at again, so that the result is the same for every way to cut the body.
    """

    __slots__ = ("_held", "_longest", "_patterns", "_replacements", "_search", "replaced")

    def __init__(self, target: str, original: str) -> None:
        names = (msgspec.json.encode(target), msgspec.json.encode(original))
        self._patterns, self._replacements = (tuple(b'"model":%b%b' % (gap, name) for gap in (b"", b" ")) for name in names)
        self._longest = len(self._patterns[1])
        self._search = re.compile(b"|".join(re.escape(pattern) for pattern in self._patterns)).search
        self._held = b""
        self.replaced = 0

    def feed(self, chunk: bytes) -> bytes:
        """The bytes to pass on now."""
        data = self._held + chunk if self._held else chunk
        self._held = b""
        if not data:
            return data
        match = self._search(data)
        if match is None:
            keep = self._unfinished(data, 0)
            if keep == len(data):
                return data
            self._held = data[keep:]
            return data[:keep]
        out: list[bytes] = []
        done = 0
        while match is not None:
            out.append(data[done : match.start()])
            # The pattern without a gap is the only one with a quote right after the colon.
            out.append(self._replacements[0 if match[0] == self._patterns[0] else 1])
            self.replaced += 1
            done = match.end()
            match = self._search(data, done)
        keep = self._unfinished(data, done)
        out.append(data[done:keep])
        self._held = data[keep:]
        return b"".join(out)

    def finish(self) -> bytes:
        """What is still held back when the response ends."""
        held, self._held = self._held, b""
        return held

    def _unfinished(self, data: bytes, done: int) -> int:
        """Where a pattern begins that the end of `data` cuts off; the length of `data` when there is none."""
        size = len(data)
        # No pattern holds a raw line feed, and most chunks of a stream end in one.
        if data[-1] == 0x0A:
            return size
        tight, spaced = self._patterns
        start = data.find(b'"', max(done, size - self._longest + 1))
        while start >= 0:
            tail = data[start:]
            if tight.startswith(tail) or spaced.startswith(tail):
                return start
            start = data.find(b'"', start + 1)
        return size
