"""The request half of a conversation: what the proxy has told of a request, and how the decision is told to it (contract 1.3 and 1.4)."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from picker.exchange import Exchange
from picker.extproc.events import (
    DEFAULT_MODES,
    BodyMode,
    BodyReply,
    Headers,
    HeadersReply,
    Metadata,
    Modes,
    Phase,
    Reply,
    RequestHeaders,
    TrailersReply,
)
from picker.extproc.headers import LB_NAMESPACE, LOAD_FORMAT, REQUEST_ID, SCORES, as_text, change
from picker.extproc.response import pieces
from picker.grpc_frames import is_grpc
from picker.keys import DESTINATION
from picker.parsing.rewrite import rewrite_model

_SET = "; set FULL_DUPLEX_STREAMED (or BUFFERED)"
UNUSABLE = {
    BodyMode.NONE: f"the request body is not sent{_SET}",
    BodyMode.STREAMED: f"the request headers leave before the body is known{_SET}",
    BodyMode.GRPC: f"gRPC message framing is not understood{_SET}",
}
"""Picking by the body needs the whole body before the headers leave the proxy; these modes cannot do that."""


class Asked:
    """One request. `headers` are as they came, plus the id; `text` are the same by name."""

    __slots__ = ("_chunks", "_made_id", "end_of_stream", "headers", "modes", "request_id", "size_bytes", "subset", "text", "trailers")

    def __init__(self) -> None:
        self.headers: Headers = ()
        self.text: Mapping[str, str] = {}
        self.request_id = ""
        self.modes: Modes = DEFAULT_MODES
        self.subset: Sequence[str] | None = None
        self.size_bytes = 0
        """Of the body, so far."""
        self.end_of_stream = True
        """Whether the body ends the request; else trailers do."""
        self.trailers = False
        """They are to be answered after the body."""
        self._chunks: list[bytes] = []
        self._made_id = False

    def begin(self, event: RequestHeaders, new_id: Callable[[], str]) -> None:
        """`new_id` makes one for a request without."""
        self.headers, self.modes = event.headers, event.modes
        self.text = text = as_text(event.headers)
        self.request_id = text.get(REQUEST_ID, "")
        if not self.request_id:
            # Pseudo-headers come first in a header map; a regular header belongs behind them.
            self.request_id, self._made_id = new_id(), True
            self.headers = [*event.headers, (REQUEST_ID, self.request_id.encode())]
            self.text = {**text, REQUEST_ID: self.request_id}

    @property
    def grpc(self) -> bool:
        """Whether the client calls over gRPC, and has to be answered so."""
        return is_grpc(self.text.get("content-type", "").lower())

    def add(self, chunk: bytes) -> None:
        """The next part of the body."""
        self._chunks.append(chunk)
        self.size_bytes += len(chunk)

    def body(self) -> bytes:
        """All of it, kept here no longer."""
        chunks, self._chunks = self._chunks, []
        return chunks[0] if len(chunks) == 1 else b"".join(chunks)

    def answer_without_body(self, destination: str) -> HeadersReply:
        """For a request that is not parsed: the client's headers are left alone."""
        first = [(DESTINATION, destination.encode())]
        if self._made_id:
            first.append((REQUEST_ID, self.request_id.encode()))
        return HeadersReply(Phase.REQUEST, change((), self.text, first), clear_route_cache=True, metadata=_told(destination))

    def answer(self, exchange: Exchange, body: bytes, *, ask_load: bool, scores: bool) -> Sequence[Reply]:
        """Where the request goes, and with which body; with `scores` also how each endpoint was scored.

        Raises BadRequest when the model cannot be rewritten.
        """
        request, decision = exchange.request, exchange.decision
        assert request is not None and decision is not None
        changed = request.target_model != request.model
        if changed:
            body = rewrite_model(body, request.target_model)
        destination = request.destination or ",".join([e.host_port for e in decision.result.endpoints])
        first = [(DESTINATION, destination.encode())]
        if body:
            first.append(("Content-Length", b"%d" % len(body)))
        if ask_load:
            first.append((LOAD_FORMAT, b"JSON"))
        if request.more_headers is not None:
            first += [(name, value.encode()) for name, value in request.more_headers.items()]
        headers = change(self.headers, self.text, first)
        more = {SCORES: decision.result.scores_by_address()} if scores else None
        metadata = _told(destination, request.metadata, more)
        if self.modes.request_body is not BodyMode.FULL_DUPLEX_STREAMED:
            return (BodyReply(Phase.REQUEST, body if changed else None, headers, True, metadata),)
        reply = HeadersReply(Phase.REQUEST, headers, clear_route_cache=True, metadata=metadata)
        parts = pieces(Phase.REQUEST, body, self.end_of_stream)
        return (reply, *parts, TrailersReply(Phase.REQUEST)) if self.trailers else (reply, *parts)


def _told(destination: str, plugins: Metadata | None = None, more: Mapping[str, object] | None = None) -> Metadata:
    """The metadata that names the destination. It must equal the header, whatever plugins add."""
    ours: dict[str, object] = {DESTINATION: destination} if more is None else {**more, DESTINATION: destination}
    if plugins is None:
        return {LB_NAMESPACE: ours}
    return {**plugins, LB_NAMESPACE: {**plugins.get(LB_NAMESPACE, {}), **ours}}
