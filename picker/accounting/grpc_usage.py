"""Token usage out of the answers of gRPC calls, read while the bytes pass by. Nothing here raises."""

from __future__ import annotations

from picker.accounting.sse import SseUsageReader
from picker.accounting.usage import MAX_TOKENS, JsonUsageTail
from picker.grpc_frames import FrameReader
from picker.protobuf_wire import WireError, fields, message, number, packed_count
from picker.request import UsageFormat
from picker.result import Usage

_MAX_SAMPLES = 1024
"""Of one request (`n`); of more the tokens are not counted."""

# GenerateResponse (`vllm_engine.proto`, see `picker.parsing.vllm_grpc`).
_CHUNK, _COMPLETE = 1, 2
# prompt_tokens, completion_tokens, cached_tokens, index.
_CHUNK_FIELDS, _COMPLETE_FIELDS = (2, 3, 4, 7), (3, 4, 5, 8)
_TOKEN_IDS = 1
# EmbedResponse.
_EMBED_PROMPT_TOKENS = 2
# google.api.HttpBody.
_HTTP_BODY_DATA = 2


class VllmUsageReader:
    """Answers of `VllmEngine/Generate` and `Embed`; feed every chunk, then `finish`.

    A streamed answer tells of each sample the tokens that are new, and its last message may tell of these or of all: the larger of their
    sum and of what was reported counts. A count of 0 is the same as none on the wire, and counts as unknown.
    """

    __slots__ = ("_cached", "_embed", "_frames", "_prompt", "_samples", "_unreadable")

    def __init__(self, format: UsageFormat) -> None:
        self._embed = format is UsageFormat.VLLM_EMBED
        self._frames = FrameReader()
        self._prompt = 0
        self._cached = 0
        self._samples: dict[int, tuple[int, int]] = {}
        """By index: token ids that came in pieces, and the highest count that was reported."""
        self._unreadable = False

    def feed(self, chunk: bytes) -> None:
        """The next bytes of the answer, cut anywhere."""
        for data in self._frames.feed(chunk):
            try:
                if self._embed:
                    self._embedding(data)
                else:
                    self._generation(data)
            except WireError:
                self._unreadable = True

    def finish(self) -> Usage | None:
        """The usage, once the answer has ended; without the output when a part of it could not be read."""
        whole = not (self._unreadable or self._frames.unread)
        completion: int | None = None
        if not self._embed and whole and self._samples:
            total = sum(max(counts) for counts in self._samples.values())
            completion = total if total <= MAX_TOKENS else None
        prompt = self._prompt if 0 < self._prompt <= MAX_TOKENS else None
        if prompt is None and completion is None:
            return None
        sum_of = prompt if self._embed else None if prompt is None or completion is None else prompt + completion
        return Usage(prompt, completion, sum_of, self._cached if 0 < self._cached <= MAX_TOKENS else None)

    def _embedding(self, data: bytes) -> None:
        for field, value in fields(data):
            if field == _EMBED_PROMPT_TOKENS:
                self._prompt = max(self._prompt, number(value, "prompt_tokens"))

    def _generation(self, data: bytes) -> None:
        for field, value in fields(data):
            if field == _CHUNK:
                self._part(message(value, "chunk"), _CHUNK_FIELDS, whole=False)
            elif field == _COMPLETE:
                self._part(message(value, "complete"), _COMPLETE_FIELDS, whole=True)

    def _part(self, data: bytes, numbers: tuple[int, int, int, int], *, whole: bool) -> None:
        prompt, completion, cached, index = numbers
        ids = reported = sample = 0
        for field, value in fields(data):
            if field == _TOKEN_IDS:
                ids += 1 if isinstance(value, int) else packed_count(value)
            elif field == prompt:
                self._prompt = max(self._prompt, number(value, "prompt_tokens"))
            elif field == completion:
                reported = number(value, "completion_tokens")
            elif field == cached:
                self._cached = max(self._cached, number(value, "cached_tokens"))
            elif field == index:
                sample = number(value, "index")
        if sample not in self._samples and len(self._samples) == _MAX_SAMPLES:
            self._unreadable = True
            return
        streamed, highest = self._samples.get(sample, (0, 0))
        if whole:
            self._samples[sample] = (streamed, max(highest, reported, ids))
        else:
            self._samples[sample] = (streamed + ids, max(highest, reported))


class HttpBodyUsageReader:
    """Calls that answer with `google.api.HttpBody`: JSON in one message, or events over many."""

    __slots__ = ("_frames", "_inner")

    def __init__(self, format: UsageFormat, *, streaming: bool) -> None:
        self._frames = FrameReader()
        self._inner: SseUsageReader | JsonUsageTail = SseUsageReader(format) if streaming else JsonUsageTail(format)

    def feed(self, chunk: bytes) -> None:
        """The next bytes of the answer, cut anywhere."""
        for data in self._frames.feed(chunk):
            try:
                for field, value in fields(data):
                    if field == _HTTP_BODY_DATA:
                        self._inner.feed(message(value, "data"))
            except WireError:
                continue

    def finish(self) -> Usage | None:
        """The usage, once the answer has ended."""
        return self._inner.finish()
