"""The ext_proc dialogue of one HTTP request as a state machine: events in, replies out.

No await, no protobuf, no socket. `TRANSITIONS` is the protocol; what it does not list is ignored when it can be a proxy's harmless
repetition, and ends the stream when it cannot. Replies come in the order the proxy needs them: headers, body, trailers.

                       RequestHeaders            RequestBody/-Trailers (end)        ResponseHeaders           end
    START ───────────────────┬──────> COLLECTING ─────────────────────> ROUTED ─────────────────> RESPONDING ─────> DONE
                             └── a request without a body ─────────────────^
"""

from __future__ import annotations

import enum
import logging
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from picker.director import Director
from picker.errors import BadRequest, Internal, PayloadTooLarge, Refusal
from picker.exchange import Cause, Exchange
from picker.extproc.events import (
    BodyMode,
    BodyReply,
    Event,
    HeaderChange,
    HeadersReply,
    ImmediateReply,
    Modes,
    Phase,
    ProtocolError,
    Reply,
    RequestBody,
    RequestHeaders,
    RequestTrailers,
    ResponseBody,
    ResponseHeaders,
    ResponseTrailers,
    TrailersReply,
)
from picker.extproc.headers import DESTINATION, DROP_REASON, LB_NAMESPACE, LOAD_FORMAT, LOAD_REPORT, REQUEST_ID, as_text, change, without
from picker.extproc.response import ResponseBodyRelay, pieces
from picker.parsing.rewrite import rewrite_model

log = logging.getLogger(__name__)

HTTP_STATUS = {"BadRequest": 400, "PayloadTooLarge": 413, "ResourceExhausted": 429, "Internal": 500, "ServiceUnavailable": 503}

# Picking by the body needs the whole body before the headers leave the proxy; these modes cannot do that.
_UNUSABLE = {
    BodyMode.NONE: "the request body is not sent",
    BodyMode.STREAMED: "the request headers leave before the body is known",
    BodyMode.GRPC: "gRPC message framing is not understood",
}

# Where a proxy that is asked not to send a body waits for that answer before it sends any. With full duplex on either side Envoy ignores
# the request (1.40), and ending the stream instead loses answers, so there a body nobody needs still passes.
_DROPPABLE = frozenset({BodyMode.STREAMED, BodyMode.BUFFERED, BodyMode.BUFFERED_PARTIAL})


class State(enum.Enum):
    """Where the dialogue stands."""

    __hash__ = object.__hash__  # in C; looked up for each message

    START = "start"
    COLLECTING = "collecting the request body"
    ROUTED = "endpoint chosen, waiting for the response"
    RESPONDING = "passing the response"
    DONE = "over"


class Conversation:
    """One per ext_proc stream. `receive` never raises anything but ProtocolError; `end` must be called when the stream is gone."""

    __slots__ = (
        "_asked_load", "_chunks", "_director", "_exchange", "_headers", "_max_body_bytes", "_modes", "_observe_responses", "_observing",
        "_received_s", "_relay", "_request_id", "_response_ended", "_size_bytes", "_subset", "_text", "_use_subset", "finished", "state",
    )  # fmt: skip

    def __init__(self, director: Director, *, max_body_bytes: int, use_subset: bool, now_s: float, observe_responses: bool = True) -> None:
        """`observe_responses`: times and usage are read from response bodies."""
        self.state = State.START
        self.finished = False
        """True when everything has been said: the transport should end the stream gracefully."""
        self._director = director
        self._max_body_bytes = max_body_bytes
        self._use_subset = use_subset
        self._observe_responses = observe_responses
        self._received_s = now_s
        self._headers: Sequence[tuple[str, bytes]] = ()
        self._text: Mapping[str, str] = {}
        self._request_id = ""
        self._modes = Modes()
        self._observing = False
        self._subset: Sequence[str] | None = None
        self._chunks: list[bytes] = []
        self._size_bytes = 0
        self._exchange: Exchange | None = None
        self._relay: ResponseBodyRelay | None = None
        self._response_ended = False
        self._asked_load = False

    def receive(self, event: Event) -> Sequence[Reply]:
        """The replies to one message, in order. Raises ProtocolError when the message cannot come now."""
        handler = TRANSITIONS.get((self.state, type(event)))
        if handler is None:
            return self._unexpected(event)
        try:
            replies = handler(self, event)
        except Refusal as refusal:
            return self._refuse(refusal)
        except ProtocolError:
            raise
        except Exception:
            log.exception("request %s failed", self._request_id)
            return self._refuse(Internal("the picker failed to handle this request; its log has the details"))
        return () if self._observing else replies

    def end(self) -> None:
        """The stream is gone, in good order or not. Settles what is still open."""
        self._close(Cause.COMPLETED if self.answered else Cause.DISCONNECTED)
        self.state = State.DONE
        self._chunks = []

    @property
    def answered(self) -> bool:
        """The proxy has shown all of the response that it is going to show."""
        return self._response_ended or (self._relay is not None and self._relay.unseen)

    def _close(self, cause: Cause) -> None:
        exchange = self._exchange
        if exchange is not None and not exchange.settled:
            if self._relay is not None and (fate := self._relay.fate):
                exchange.response_unread(fate)
            exchange.close(cause)

    # ---- request -------------------------------------------------------------------------------------------------------------

    def _request_headers(self, event: RequestHeaders) -> Sequence[Reply]:
        self._headers = event.headers
        self._text = text = as_text(event.headers)
        self._modes = modes = event.modes
        self._hint(event.subset)
        self._request_id = text.get(REQUEST_ID, "")
        if not self._request_id:
            # Pseudo-headers come first in a header map; a regular header belongs behind them.
            self._request_id = self._director.new_request_id()
            self._headers = [*event.headers, (REQUEST_ID, self._request_id.encode())]
            self._text = text = {**text, REQUEST_ID: self._request_id}
        if modes.observability:
            return self._observe()
        if event.end_of_stream:
            self.state = State.ROUTED
            endpoint = self._director.any_endpoint(self._subset)
            target = endpoint.host_port.encode()
            return (self._routed(change((), text, [(DESTINATION, target), *self._new_id(event)]), endpoint.host_port),)
        if modes.request_body in _UNUSABLE:
            raise self._counted(
                Internal(
                    f"ext_proc request_body_mode {modes.request_body.name} cannot be served: {_UNUSABLE[modes.request_body]}; "
                    "set FULL_DUPLEX_STREAMED (or BUFFERED)"
                )
            )
        self._check_size(_number(text.get("content-length", "")))
        self.state = State.COLLECTING
        # Outside full duplex the proxy sends the body only after its headers are answered; the decision follows with the body.
        return () if modes.request_body is BodyMode.FULL_DUPLEX_STREAMED else (HeadersReply(Phase.REQUEST),)

    def _new_id(self, event: RequestHeaders) -> Sequence[tuple[str, bytes]]:
        return () if self._headers is event.headers else ((REQUEST_ID, self._request_id.encode()),)

    def _observe(self) -> Sequence[Reply]:
        """Nothing we say is heard in observability mode: no endpoint can be chosen, the stream is only drained."""
        self._observing = True
        self.state = State.DONE
        log.warning("a proxy runs ext_proc in observability_mode: it cannot be told an endpoint, its requests are not scheduled")
        return ()

    def _request_body(self, event: RequestBody) -> Sequence[Reply]:
        self._hint(event.subset)
        self._chunks.append(event.body)
        self._size_bytes += len(event.body)
        self._check_size(self._size_bytes)
        # BUFFERED sends the whole body at once; when trailers follow it, that message need not end the stream.
        if event.end_of_stream or self._modes.request_body is BodyMode.BUFFERED:
            return self._decide(end_of_stream=True)
        if self._modes.request_body is BodyMode.BUFFERED_PARTIAL:
            raise self._counted(PayloadTooLarge("the request body does not fit the proxy's buffer (request_body_mode BUFFERED_PARTIAL)"))
        return ()

    def _request_trailers(self, event: RequestTrailers) -> Sequence[Reply]:
        """Trailers end a body that had no end-of-stream message."""
        self._hint(event.subset)
        if self._modes.request_body is not BodyMode.FULL_DUPLEX_STREAMED:
            # No body came that the decision could be told in the answer to, and an answer to trailers cannot name an endpoint.
            raise self._counted(BadRequest("a request that has trailers but no body cannot be routed"))
        return (*self._decide(end_of_stream=False), TrailersReply(Phase.REQUEST))

    def _late_request_trailers(self, event: RequestTrailers) -> Sequence[Reply]:
        return (TrailersReply(Phase.REQUEST),)

    def _ignore(self, event: Event) -> Sequence[Reply]:
        """Envoy 1.35 and later may deliver the last request chunk twice (envoyproxy/envoy issue 46237): it has been answered."""
        return ()

    def _decide(self, *, end_of_stream: bool) -> Sequence[Reply]:
        body = self._chunks[0] if len(self._chunks) == 1 else b"".join(self._chunks)
        self._chunks = []
        self.state = State.ROUTED
        exchange = self._exchange = self._director.handle(
            self._text, body, self._subset, request_id=self._request_id, received_s=self._received_s
        )
        request, decision = exchange.request, exchange.decision
        assert request is not None and decision is not None
        changed = request.target_model != request.model and bool(request.model)
        if changed:
            body = rewrite_model(body, request.target_model)
        destination = ",".join([e.host_port for e in decision.result.endpoints])
        first = [(DESTINATION, destination.encode())]
        if body:
            first.append(("Content-Length", b"%d" % len(body)))
        self._asked_load = LOAD_FORMAT not in self._text and exchange.ask_for_report()
        if self._asked_load:
            first.append((LOAD_FORMAT, b"JSON"))
        reply = self._routed(change(self._headers, self._text, first), destination)
        if self._modes.request_body is BodyMode.FULL_DUPLEX_STREAMED:
            return (reply, *pieces(Phase.REQUEST, body, end_of_stream))
        return (BodyReply(Phase.REQUEST, body if changed else None, reply.change, reply.clear_route_cache, reply.metadata),)

    def _routed(self, header_change: HeaderChange, destination: str) -> HeadersReply:
        return HeadersReply(
            Phase.REQUEST,
            header_change,
            clear_route_cache=True,
            metadata={LB_NAMESPACE: {DESTINATION: destination}},
        )

    def _hint(self, subset: Sequence[str] | None) -> None:
        if subset is not None and self._use_subset:
            self._subset = subset

    def _check_size(self, size_bytes: int) -> None:
        if 0 < self._max_body_bytes < size_bytes:
            raise self._counted(PayloadTooLarge(f"the request body is larger than the limit of {self._max_body_bytes} bytes"))

    def _counted(self, refusal: Refusal) -> Refusal:
        """A refusal that the director does not get to see."""
        self._director.refuse(self._text, refusal)
        return refusal

    # ---- response ------------------------------------------------------------------------------------------------------------

    def _response_headers(self, event: ResponseHeaders) -> Sequence[Reply]:
        if self.state is State.START:
            self._modes = event.modes
            if event.modes.observability:
                return self._observe()
            self._exchange = self._director.response_only()
        raw = dict(event.headers)
        relay = self._begin_response(raw, event.served)
        reply = change(event.headers, raw, [("x-went-into-resp-headers", b"true")])
        if relay.resizes and "content-length" in raw:
            reply = without(reply, "content-length")
        if self._asked_load and LOAD_REPORT in raw:
            reply = without(reply, LOAD_REPORT)
        keep_body: Modes | None = None
        if event.end_of_stream:
            self._end_response(over=True)
        elif self._modes.response_body is BodyMode.NONE:
            relay.keep_body()
        elif relay.unread and self._modes.response_body in _DROPPABLE and self._modes.request_body is not BodyMode.FULL_DUPLEX_STREAMED:
            keep_body = self._modes
            relay.keep_body()
        return (HeadersReply(Phase.RESPONSE, reply, keep_body=keep_body),)

    def _begin_response(self, raw: Mapping[str, bytes], served: str | None) -> ResponseBodyRelay:
        """`raw` are the headers by name; of a repeated one the last value."""
        self.state = State.RESPONDING
        content_type = raw.get("content-type", b"").decode("latin-1").lower()
        encoded = raw.get("content-encoding", b"") not in (b"identity", b"")
        relay = self._relay = ResponseBodyRelay(
            self._exchange, self._modes.response_body, content_type, encoded, observe=self._observe_responses
        )
        status = (raw.get(":status") or raw.get("status") or b"200").decode("latin-1")
        if self._exchange is not None:
            self._exchange.begin_response(
                _number(status),
                relay.reader(content_type, encoded),
                streaming=relay.streaming,
                served=served,
                report=None if (report := raw.get(LOAD_REPORT)) is None else report.decode("latin-1"),
            )
        return relay

    def _body_without_headers(self, event: ResponseBody) -> Sequence[Reply]:
        """A proxy that skips response headers still sends the body."""
        self._begin_response({}, None)
        return self._response_body(event)

    def _response_body(self, event: ResponseBody) -> Sequence[Reply]:
        assert self._relay is not None
        replies = self._relay.chunk(event.body, event.end_of_stream)
        if event.end_of_stream or self._relay.one_message:
            self._end_response(over=event.end_of_stream)
        return replies

    def _trailers_without_headers(self, event: ResponseTrailers) -> Sequence[Reply]:
        """As may a proxy that sends neither response headers nor bodies."""
        self._begin_response({}, None)
        return self._response_trailers(event)

    def _response_trailers(self, event: ResponseTrailers) -> Sequence[Reply]:
        assert self._relay is not None
        replies = self._relay.rest()
        self._end_response(over=True)
        return (*replies, TrailersReply(Phase.RESPONSE))

    def _end_response(self, *, over: bool) -> None:
        """`over`: nothing more will come; otherwise the body passes unseen and the end of the stream is its end."""
        self._response_ended = True
        if over:
            self.state = State.DONE
            self._close(Cause.COMPLETED)

    # ---- the unexpected ------------------------------------------------------------------------------------------------------

    def _unexpected(self, event: Event) -> Sequence[Reply]:
        raise ProtocolError(f"{type(event).__name__} cannot come while the stream is at: {self.state.value}")

    def _refuse(self, refusal: Refusal) -> Sequence[Reply]:
        self._close(Cause.BAD_REQUEST if isinstance(refusal, BadRequest) else Cause.FAILED)
        self.state = State.DONE
        self.finished = True
        self._chunks = []
        if self._observing:
            return ()
        headers: list[tuple[str, bytes]] = []
        if refusal.drop_reason is not None:
            headers.append((DROP_REASON, refusal.drop_reason.encode()))
        if refusal.retry_after_s is not None:
            headers.append(("retry-after", b"%d" % max(1, round(refusal.retry_after_s))))
        body = f"inference error: {refusal.code} - {refusal.message}".encode()
        return (ImmediateReply(HTTP_STATUS[refusal.code], body, headers, details=f"fairlead_{refusal.code}"),)


def _number(text: str) -> int:
    """A length or status; 0 when it is none. Nobody needs more digits than that, and Python refuses to read thousands."""
    return int(text[:18]) if text.isdecimal() else 0


# Each handler takes the one event type it is listed under.
Handler = Callable[[Conversation, Any], Sequence[Reply]]

TRANSITIONS: dict[tuple[State, type[Event]], Handler] = {
    (State.START, RequestHeaders): Conversation._request_headers,
    (State.START, ResponseHeaders): Conversation._response_headers,
    (State.COLLECTING, RequestBody): Conversation._request_body,
    (State.COLLECTING, RequestTrailers): Conversation._request_trailers,
    (State.COLLECTING, ResponseHeaders): Conversation._response_headers,
    (State.ROUTED, RequestBody): Conversation._ignore,
    (State.ROUTED, RequestTrailers): Conversation._late_request_trailers,
    (State.ROUTED, ResponseHeaders): Conversation._response_headers,
    (State.ROUTED, ResponseBody): Conversation._body_without_headers,
    (State.ROUTED, ResponseTrailers): Conversation._trailers_without_headers,
    (State.RESPONDING, RequestBody): Conversation._ignore,
    (State.RESPONDING, RequestTrailers): Conversation._late_request_trailers,
    (State.RESPONDING, ResponseBody): Conversation._response_body,
    (State.RESPONDING, ResponseTrailers): Conversation._response_trailers,
    **{(State.DONE, event): Conversation._ignore for event in (RequestBody, ResponseHeaders, ResponseBody)},
    (State.DONE, RequestTrailers): Conversation._late_request_trailers,
    (State.DONE, ResponseTrailers): lambda conversation, event: (TrailersReply(Phase.RESPONSE),),
}
