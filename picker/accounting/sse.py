"""Token usage and progress of a stream of server-sent events, read while the bytes pass by.

The reader finds the ends of events (WHATWG HTML, section 9.2.6: lines end in LF, CR or CRLF, an empty line ends an event) and looks
into an event only when it can hold usage. It never changes or holds the bytes; the caller passes them on.
"""

from __future__ import annotations

import re
from typing import Any

import msgspec

from picker.accounting.usage import Body, count, last_usage, usage_of
from picker.request import UsageFormat
from picker.result import Usage

MAX_EVENT_BYTES = 1024 * 1024

_BOM = b"\xef\xbb\xbf"
# An empty line, whatever the line ends: a line feed of its CRLF goes with it.
_EVENT_END = re.compile(rb"\n\n|\n\r\n?|\r\r\n?")
_DATA_LINE = re.compile(rb"(?:^|[\r\n])data:")
_LINE_END = re.compile(rb"\r\n|\n|\r")
_NULL = re.compile(rb'"usage"\s*:\s*null')
_RESPONSES_END = frozenset(("response.completed", "response.incomplete", "response.failed"))
# What the last event of a stream without [DONE] cannot do without; text that merely mentions it is told apart by decoding.
_STOP = {
    UsageFormat.RESPONSES: re.compile(rb'"response\.(?:completed|incomplete|failed)"'),
    UsageFormat.ANTHROPIC: re.compile(rb'"message_stop"'),
    UsageFormat.SGLANG: re.compile(rb'"finish_reason"\s*:\s*(?!null|\s)'),
}


class _Event(msgspec.Struct, gc=False):
    """The data of an event that may carry usage: directly, in its response (Responses) or message (Anthropic)."""

    type: Any = None
    usage: Any = None
    response: Body | None = None
    message: Body | None = None
    meta_info: Any = None


class _Plain(msgspec.Struct, gc=False):
    """The same for chat and completions, where `response` and `message` are nobody's names."""

    usage: Any = None


_EVENT = msgspec.json.Decoder(_Event)
_PLAIN = msgspec.json.Decoder(_Plain)


class SseUsageReader:
    """Feed it every chunk of a stream, then `finish`.

    `usage` is the last one seen (Anthropic: merged from the first and the last); `events` counts events with data other than
    `[DONE]`, which stands in for produced tokens where a server reports none; `done` says that `[DONE]`, or the API's own last
    event, was seen; `overflowed` counts events whose unfinished part grew past 1 MiB, which are counted but not read.
    """

    __slots__ = (
        "_dropping",
        "_fields",
        "_format",
        "_last",
        "_pending",
        "_skip_lf",
        "_started",
        "_stop",
        "done",
        "events",
        "overflowed",
        "usage",
    )

    def __init__(self, format: UsageFormat) -> None:
        self.usage: Usage | None = None
        self.events = 0
        self.done = False
        self.overflowed = 0
        self._format = format
        self._stop = _STOP.get(format)
        self._pending = bytearray()  # the unfinished event
        self._last = b""  # its last byte, kept apart since `_pending` may be dropped
        self._dropping = False
        self._skip_lf = False  # the last event ended in a CR whose LF may follow
        self._started = False
        self._fields: dict[str, Any] = {}

    def feed(self, chunk: bytes) -> None:
        """The next bytes of the stream, cut anywhere."""
        # The common chunk is one whole event of one line; everything else takes the long way.
        if (
            chunk.startswith(b"data:")
            and chunk.find(b"\n") == len(chunk) - 2
            and chunk.endswith(b"\n")
            and not self._last
            and b"\r" not in chunk
        ):
            self._started = True
            self._skip_lf = False
            self._data_event(chunk)
        elif chunk:
            self._scan(chunk)

    def finish(self) -> Usage | None:
        """The stream has ended; an event without its empty line still counts, since servers and proxies cut that off."""
        if self._last:
            self._end_event(b"")
        self._skip_lf = False
        return self.usage

    def _scan(self, chunk: bytes) -> None:
        """Cuts a chunk at the ends of events. Each byte is searched once, however small the chunks are."""
        pos = 0
        if self._skip_lf:
            self._skip_lf = False
            if chunk[0] == 0x0A:
                pos = 1
        if self._last and (edge := _EVENT_END.match(self._last + chunk[:2])):
            # The empty line lies across the edge of two chunks.
            pos = edge.end() - 1
            self._end_event(chunk[:pos])
            self._skip_lf = pos == len(chunk) and chunk[-1] == 0x0D
        start = pos
        if b"\r" in chunk:
            for match in _EVENT_END.finditer(chunk, pos):
                self._take(chunk, start, match.end())
                start = match.end()
            if start > pos and start == len(chunk):
                self._skip_lf = chunk[-1] == 0x0D
        else:
            while (end := chunk.find(b"\n\n", start)) >= 0:
                self._take(chunk, start, end + 2)
                start = end + 2
        if start < len(chunk):
            self._hold(chunk[start:] if start else chunk)

    def _take(self, chunk: bytes, start: int, end: int) -> None:
        """One event ends at `end`; it began at `start`, or in an earlier chunk."""
        if self._last:
            self._end_event(chunk[start:end])
        else:
            self._event(chunk[start:end])

    def _hold(self, piece: bytes) -> None:
        """Keeps the beginning of an event, or only its last byte once it has grown too long."""
        self._last = piece[-1:]
        if self._dropping:
            return
        self._pending += piece
        if len(self._pending) > MAX_EVENT_BYTES:
            self._dropping = True
            self.overflowed += 1
            self._pending = bytearray()

    def _end_event(self, rest: bytes) -> None:
        """The event that earlier chunks began is complete."""
        dropped, self._dropping = self._dropping, False
        event, self._pending = self._pending, bytearray()
        self._last = b""
        if dropped:
            self.events += 1
        else:
            self._event(bytes(event + rest))

    def _event(self, event: bytes) -> None:
        """One event, with the empty line that ends it."""
        if not self._started:
            self._started = True
            event = event.removeprefix(_BOM)
        if event.startswith(b"data:") or _DATA_LINE.search(event):
            self._data_event(event)

    def _data_event(self, event: bytes) -> None:
        """An event that has at least one line of data."""
        if b"[DONE]" in event:
            lines = _data(event).strip()
            # Some servers leave out the empty line before it, which makes it the last line of the event before.
            self.done = self.done or lines.rpartition(b"\n")[2].strip() == b"[DONE]"
            if lines == b"[DONE]":
                return
        self.events += 1
        found = event.find(b'"usage"')
        # Servers that report at the end say "usage":null until then.
        while found >= 0 and _NULL.match(event, found):
            found = event.find(b'"usage"', found + 7)
        if found >= 0 or (self._stop is not None and self._stop.search(event)):
            self._read(_data(event))

    def _read(self, data: bytes) -> None:
        """Usage out of the data of one event; whatever cannot be read is no usage."""
        if self._format is UsageFormat.OPENAI:
            try:
                self._note(usage_of(_PLAIN.decode(data).usage, self._format))
            except (ValueError, RecursionError):
                # Events run into each other where a server saves on line feeds: `{"usage":{}}` and `[DONE]` on adjacent lines.
                self._note(last_usage(data, self._format))
            return
        try:
            event = _EVENT.decode(data)
        except (ValueError, RecursionError):
            return
        if self._format is UsageFormat.SGLANG:
            self._note(usage_of(event.meta_info, self._format))
        elif self._format is UsageFormat.RESPONSES:
            if isinstance(event.type, str) and event.type in _RESPONSES_END:
                self.done = True
                if event.response is not None:
                    self._note(usage_of(event.response.usage, self._format))
        elif self._format is UsageFormat.ANTHROPIC:
            self.done = self.done or event.type == "message_stop"
            fields = event.message.usage if event.message is not None else event.usage
            if isinstance(fields, dict):
                # The first event knows the prompt, the last one the output; what is no count takes nothing back.
                self._fields.update({name: value for name, value in fields.items() if count(value) is not None})
                self._note(usage_of(self._fields, self._format))

    def _note(self, usage: Usage | None) -> None:
        if usage is not None:
            self.usage = usage


def _data(event: bytes) -> bytes:
    """The lines of data joined by line feeds, in one cut in the common case of a single line."""
    if event.startswith(b"data:") and event.find(b"\n") >= len(event) - 2 and b"\r" not in event:
        return event[5:]
    return b"\n".join([line[5:] for line in _LINE_END.split(event) if line.startswith(b"data:")])
