"""The response half of a conversation: how a response body passes, and what is read from it on the way."""

from __future__ import annotations

from collections.abc import Sequence

from picker.accounting.grpc_usage import HttpBodyUsageReader, VllmUsageReader
from picker.accounting.restore import ModelRestorer
from picker.accounting.sse import SseUsageReader
from picker.accounting.usage import JsonUsageTail
from picker.exchange import Exchange, UsageReader
from picker.extproc.events import BodyMode, BodyReply, Modes, Phase, Reply, StreamedBodyReply
from picker.grpc_frames import is_grpc
from picker.request import UsageFormat

BODY_LIMIT_BYTES = 62_000
"""Envoy refuses streamed bodies of more than 64 KB; the reference keeps to this."""

_VLLM_GRPC = frozenset({UsageFormat.VLLM_GENERATE, UsageFormat.VLLM_EMBED})
_DROPPABLE = frozenset({BodyMode.STREAMED, BodyMode.BUFFERED, BodyMode.BUFFERED_PARTIAL})

HOLD_LIMIT_BYTES = 8 << 20
"""A JSON response is held back until it is complete, as the reference does, but never more than this much of it."""


def pieces(phase: Phase, body: bytes, end_of_stream: bool) -> Sequence[StreamedBodyReply]:
    """`body` in pieces the proxy accepts, at least one, the end of stream on the last only."""
    size = len(body)
    if size <= BODY_LIMIT_BYTES:
        return (StreamedBodyReply(phase, body, end_of_stream),)
    last = size - BODY_LIMIT_BYTES
    view = memoryview(body)
    return [
        StreamedBodyReply(phase, view[start : start + BODY_LIMIT_BYTES], end_of_stream and start >= last)
        for start in range(0, size, BODY_LIMIT_BYTES)
    ]


class ResponseBodyRelay:
    """Passes one response body on: at once (streams, and whatever is not JSON), or held until complete (JSON).

    `observe` is whether times and usage are wanted of bodies that can be had; a plugin that needs usage always gets it. A body that
    nobody needs is passed unread, or not shown by the proxy at all.
    """

    __slots__ = ("_exchange", "_held", "_held_bytes", "_kept", "_mode", "_observed", "_restorer", "_shown", "one_message", "streaming")

    def __init__(self, exchange: Exchange | None, mode: BodyMode, content_type: str, encoded: bool, *, observe: bool) -> None:
        request = exchange.request if exchange is not None else None
        sse = content_type.startswith("text/event-stream") or (not content_type and request is not None and request.body.stream)
        grpc = is_grpc(content_type)
        json = not sse and not grpc and (not content_type or "json" in content_type)
        # The reference ends its stream instead of passing an answer it need not see. In full duplex Envoy may have handed the body over
        # by then, and the client gets none (seen with Envoy 1.40).
        wanted = exchange is not None and not (request is not None and request.body.skip_response)
        # A client that named no model is told which one answered.
        rewritten = request is not None and bool(request.model) and request.target_model != request.model
        self.streaming = sse or (grpc and request is not None and request.body.stream)
        self._exchange = exchange
        self._mode = mode
        self._observed = exchange if wanted and exchange is not None and (observe or exchange.needs_usage) else None
        self._restorer = (
            ModelRestorer(request.target_model, request.model)
            if rewritten and wanted and not encoded and (sse or json) and request is not None
            else None
        )
        readable = not encoded and (self._observed is not None or self._restorer is not None)
        self._held: list[bytes] | None = [] if json and readable and mode is BodyMode.FULL_DUPLEX_STREAMED else None
        self._held_bytes = 0
        self._kept = False
        self._shown = False
        self.one_message = mode is BodyMode.BUFFERED or mode is BodyMode.BUFFERED_PARTIAL
        """Whether a single message carries all of the body that will be seen."""

    @property
    def resizes(self) -> bool:
        """Whether the body may change its length on the way."""
        return self._restorer is not None

    @property
    def unread(self) -> bool:
        """Nobody looks at this body."""
        return self._observed is None and self._restorer is None

    @property
    def unseen(self) -> bool:
        """The proxy keeps the body to itself, as far as can be told: the end of the stream is the end of the response."""
        return self._kept and not self._shown

    def droppable(self, modes: Modes) -> bool:
        """Whether the proxy can be asked to keep the body to itself.

        It has to wait for that answer before it sends any. With full duplex on either side Envoy ignores the request (1.40), and ending the
        stream instead loses answers, so there a body nobody needs still passes.
        """
        return self.unread and self._mode in _DROPPABLE and modes.request_body is not BodyMode.FULL_DUPLEX_STREAMED

    def keep_body(self) -> None:
        """The proxy's mode says so, or it has been asked to; then it need not listen."""
        self._kept = True

    @property
    def fate(self) -> str:
        """For the metric of bodies nobody looked at: `not_sent` by the proxy's mode, `dropped` at our request, `passed`; empty: there was
        none, or it was read."""
        if self.unseen:
            return "not_sent" if self._mode is BodyMode.NONE else "dropped"
        return "passed" if self._shown and self.unread else ""

    def reader(self, content_type: str, encoded: bool) -> UsageReader | None:
        """What reads usage from this body; None when it cannot be read or holds none."""
        if self._observed is None or encoded:
            return None
        request = self._observed.request
        format_ = request.body.usage_format if request is not None else UsageFormat.OPENAI
        if format_ is UsageFormat.NONE:
            return None
        if format_ in _VLLM_GRPC:
            return VllmUsageReader(format_) if not content_type or is_grpc(content_type) else None
        if is_grpc(content_type):
            return HttpBodyUsageReader(format_, streaming=self.streaming)
        if self.streaming:
            return SseUsageReader(format_)
        return JsonUsageTail(format_) if not content_type or "json" in content_type else None

    def chunk(self, body: bytes, end_of_stream: bool) -> Sequence[Reply]:
        """The replies to one body message."""
        if self._observed is not None:
            self._observed.response_chunk(body)
        elif not self._shown and self._exchange is not None:
            self._exchange.response_started()
        self._shown = True
        if self._held is not None:
            self._held.append(body)
            self._held_bytes += len(body)
            if not end_of_stream and self._held_bytes <= HOLD_LIMIT_BYTES:
                return ()
            body = b"".join(self._held)
            self._held = None
        if self._mode is BodyMode.FULL_DUPLEX_STREAMED:
            if self._restorer is not None:
                body = self._restored(body, end_of_stream)
            if len(body) <= BODY_LIMIT_BYTES:  # nearly always, and a call less for each event
                return (StreamedBodyReply(Phase.RESPONSE, body, end_of_stream),)
            return pieces(Phase.RESPONSE, body, end_of_stream)
        if self._restorer is None:
            return (BodyReply(Phase.RESPONSE),)
        return (BodyReply(Phase.RESPONSE, self._restored(body, end_of_stream or self.one_message)),)

    def rest(self) -> Sequence[Reply]:
        """What was held back when trailers end the body. In the other modes nothing can be added to the answers given."""
        if self._mode is not BodyMode.FULL_DUPLEX_STREAMED:
            return ()
        held, self._held = self._held, None
        body = self._restored(b"".join(held or ()), True)
        return pieces(Phase.RESPONSE, body, False) if body else ()

    def _restored(self, body: bytes, last: bool) -> bytes:
        if self._restorer is None:
            return body
        body = self._restorer.feed(body)
        return body + self._restorer.finish() if last else body
