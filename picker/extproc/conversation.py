"""The ext_proc dialogue of one HTTP request as a state machine: events in, replies out.

No await, no protobuf, no socket. `TRANSITIONS` is the protocol; what it does not list is ignored when it can be a proxy's harmless
repetition, and ends the stream when it cannot. Replies come in the order the proxy needs them: headers, body, trailers.

                       RequestHeaders            RequestBody/-Trailers (end)        ResponseHeaders           end
    START ───────────────────┬──────> COLLECTING ─────────────────────> ROUTED ─────────────────> RESPONDING ─────> DONE
                             │            └───> WAITING ───(decided)─────^
                             └── a request without a body ───────────────^

Two things are said unasked, through `deliver`: the decision a request had to wait for, and that it has been evicted.
"""

from __future__ import annotations

import enum
import logging
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from msgspec.structs import replace

from picker.director import Director
from picker.errors import BadRequest, Evicted, Internal, PayloadTooLarge, Refusal
from picker.exchange import Cause, Exchange, Metadata
from picker.extproc.asked import UNUSABLE, Asked
from picker.extproc.events import (
    BodyMode,
    Deliver,
    Event,
    Headers,
    HeadersReply,
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
    undelivered,
)
from picker.extproc.headers import LOAD_FORMAT, LOAD_REPORT, change, without
from picker.extproc.refusals import refused
from picker.extproc.response import ResponseBodyRelay
from picker.waiting import Waiting

log = logging.getLogger(__name__)


class State(enum.Enum):
    """Where the dialogue stands."""

    __hash__ = object.__hash__  # in C; looked up for each message

    START = "start"
    COLLECTING = "collecting the request body"
    WAITING = "request complete, waiting for its turn"
    ROUTED = "endpoint chosen, waiting for the response"
    RESPONDING = "passing the response"
    DONE = "over"


class Conversation:
    """One per ext_proc stream. `receive` never raises anything but ProtocolError; `end` must be called when the stream is gone."""

    __slots__ = (
        "_asked", "_asked_load", "_deliver", "_director", "_emit_scores", "_exchange", "_held", "_max_body_bytes", "_observe_responses",
        "_observing", "_received_s", "_relay", "_response_ended", "_use_subset", "_waiting", "finished", "state",
    )  # fmt: skip

    def __init__(
        self,
        director: Director,
        deliver: Deliver = undelivered,
        *,
        max_body_bytes: int,
        use_subset: bool,
        now_s: float,
        observe_responses: bool = True,
        emit_scores: bool = False,
    ) -> None:
        """`observe_responses`: times and usage are read from response bodies; `emit_scores`: the proxy is told all scores."""
        self.state = State.START
        self.finished = False  # True when everything has been said: the transport should end the stream gracefully
        self._director = director
        self._deliver = deliver
        self._waiting: Waiting | None = None
        self._held = b""  # the body, while waiting
        self._max_body_bytes = max_body_bytes
        self._use_subset = use_subset
        self._observe_responses = observe_responses
        self._emit_scores = emit_scores
        self._received_s = now_s
        self._asked = Asked()
        self._observing = False
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
            log.exception("request %s failed", self._asked.request_id)
            return self._refuse(_FAULT)
        return () if self._observing else replies

    def end(self) -> None:
        """The stream is gone, in good order or not. Settles what is still open."""
        self._leave()
        self._close(Cause.COMPLETED if self.answered else Cause.DISCONNECTED)
        self.state = State.DONE

    @property
    def answered(self) -> bool:
        """The proxy has shown all of the response that it will."""
        return self._response_ended or (self._relay is not None and self._relay.unseen)

    @property
    def waiting(self) -> bool:
        """The request has not been decided yet."""
        return self._waiting is not None

    @property
    def may_speak(self) -> bool:
        """Whether something may come through `deliver` before the next message does."""
        return self._waiting is not None or (self._exchange is not None and self._exchange.on_evicted is not None)

    def _leave(self) -> None:
        waiting, self._waiting = self._waiting, None
        if waiting is not None:
            waiting.cancel()

    def _close(self, cause: Cause) -> None:
        exchange = self._exchange
        if exchange is not None and not exchange.settled:
            if self._relay is not None and (fate := self._relay.fate):
                exchange.response_unread(fate)
            exchange.close(cause)

    # ---- request -------------------------------------------------------------------------------------------------------------

    def _request_headers(self, event: RequestHeaders) -> Sequence[Reply]:
        asked = self._asked
        asked.begin(event, self._director.new_request_id)
        self._hint(event.subset)
        modes = asked.modes
        if modes.observability:
            return self._observe()
        if event.end_of_stream:
            self.state = State.ROUTED
            return (asked.answer_without_body(self._director.any_endpoint(asked.subset).host_port),)
        if modes.request_body in UNUSABLE:
            raise self._counted(
                Internal(f"ext_proc request_body_mode {modes.request_body.name} cannot be served: {UNUSABLE[modes.request_body]}")
            )
        self._check_size(_number(asked.text.get("content-length", "")))
        self.state = State.COLLECTING
        # Outside full duplex the proxy sends the body only after its headers are answered; the decision follows with the body.
        return () if modes.request_body is BodyMode.FULL_DUPLEX_STREAMED else (HeadersReply(Phase.REQUEST),)

    def _observe(self) -> Sequence[Reply]:
        """Nothing we say is heard in observability mode: no endpoint can be chosen, the stream is only drained."""
        self._observing = True
        self.state = State.DONE
        log.warning("a proxy runs ext_proc in observability_mode: it cannot be told an endpoint, its requests are not scheduled")
        return ()

    def _request_body(self, event: RequestBody) -> Sequence[Reply]:
        self._hint(event.subset)
        asked = self._asked
        asked.add(event.body)
        self._check_size(asked.size_bytes)
        # BUFFERED sends the whole body at once; when trailers follow it, that message need not end the stream.
        if event.end_of_stream or asked.modes.request_body is BodyMode.BUFFERED:
            return self._decide()
        if asked.modes.request_body is BodyMode.BUFFERED_PARTIAL:
            raise self._counted(PayloadTooLarge("the request body does not fit the proxy's buffer (request_body_mode BUFFERED_PARTIAL)"))
        return ()

    def _request_trailers(self, event: RequestTrailers) -> Sequence[Reply]:
        """Trailers end a body that had no end-of-stream message."""
        self._hint(event.subset)
        if self._asked.modes.request_body is not BodyMode.FULL_DUPLEX_STREAMED:
            # No body came that the decision could be told in the answer to, and an answer to trailers cannot name an endpoint.
            raise self._counted(BadRequest("a request that has trailers but no body cannot be routed"))
        self._asked.end_of_stream, self._asked.trailers = False, True
        return self._decide()

    def _late_request_trailers(self, event: RequestTrailers) -> Sequence[Reply]:
        return (TrailersReply(Phase.REQUEST),)

    def _ignore(self, event: Event) -> Sequence[Reply]:
        """Envoy 1.35 and later may deliver the last request chunk twice (envoyproxy/envoy issue 46237): it has been answered."""
        return ()

    def _decide(self) -> Sequence[Reply]:
        asked = self._asked
        body = asked.body()
        self.state = State.ROUTED
        outcome = self._director.handle(
            asked.text, body, asked.subset, request_id=asked.request_id, received_s=self._received_s, resume=self._resumed
        )
        if isinstance(outcome, Waiting):
            self.state = State.WAITING
            self._waiting = outcome
            self._held = body
            return ()
        return self._route(outcome, body)

    def _resumed(self, outcome: Exchange | Refusal) -> None:
        """The request has had its turn, or never will have it."""
        self._waiting = None
        held, self._held = self._held, b""
        self.state = State.ROUTED
        try:
            if isinstance(outcome, Refusal):
                raise outcome
            replies = self._route(outcome, held)
        except Refusal as refusal:
            replies = self._refuse(refusal)
        except Exception:
            log.exception("request %s failed", self._asked.request_id)
            replies = self._refuse(_FAULT)
        self._deliver(replies)

    def _evicted(self, refusal: Evicted) -> None:
        """The exchange has settled; the client gets this in place of an answer."""
        self._deliver(self._refuse(refusal))

    def _route(self, exchange: Exchange, body: bytes) -> Sequence[Reply]:
        self._exchange = exchange
        if exchange.evictable:
            exchange.on_evicted = self._evicted
        self._asked_load = LOAD_FORMAT not in self._asked.text and exchange.ask_for_report()
        return self._asked.answer(exchange, body, ask_load=self._asked_load, scores=self._emit_scores)

    def _hint(self, subset: Sequence[str] | None) -> None:
        if subset is not None and self._use_subset:
            self._asked.subset = subset

    def _check_size(self, size_bytes: int) -> None:
        if 0 < self._max_body_bytes < size_bytes:
            raise self._counted(PayloadTooLarge(f"the request body is larger than the limit of {self._max_body_bytes} bytes"))

    def _counted(self, refusal: Refusal) -> Refusal:
        """A refusal that the director does not get to see."""
        self._director.refuse(self._asked.text, refusal)
        return refusal

    # ---- response ------------------------------------------------------------------------------------------------------------

    def _response_headers(self, event: ResponseHeaders) -> Sequence[Reply]:
        if self.state is State.START:
            self._asked.modes = event.modes
            if event.modes.observability:
                return self._observe()
            self._exchange = self._director.response_only()
        self._leave()  # an answer before the decision: the proxy's own, e.g. when its patience has ended
        raw = dict(event.headers)
        relay, more = self._begin_response(raw, event.served)
        reply = change(event.headers, raw, [("x-went-into-resp-headers", b"true"), *more])
        if relay.resizes and "content-length" in raw:
            reply = without(reply, "content-length")
        if self._asked_load and LOAD_REPORT in raw:
            reply = without(reply, LOAD_REPORT)
        keep_body: Modes | None = None
        metadata: Metadata | None = None
        if event.end_of_stream:
            metadata = self._end_response(over=True)
        elif self._asked.modes.response_body is BodyMode.NONE:
            relay.keep_body()
        elif relay.droppable(self._asked.modes):
            keep_body = self._asked.modes
            relay.keep_body()
        return (HeadersReply(Phase.RESPONSE, reply, keep_body=keep_body, metadata=metadata),)

    def _begin_response(self, raw: Mapping[str, bytes], served: str | None) -> tuple[ResponseBodyRelay, Headers]:
        """`raw` are the headers by name; of a repeated one the last value. Returns headers to set, too."""
        self.state = State.RESPONDING
        content_type = raw.get("content-type", b"").decode("latin-1").lower()
        encoded = raw.get("content-encoding", b"") not in (b"identity", b"")
        relay = self._relay = ResponseBodyRelay(
            self._exchange, self._asked.modes.response_body, content_type, encoded, observe=self._observe_responses
        )
        status = (raw.get(":status") or raw.get("status") or b"200").decode("latin-1")
        more: Headers = ()
        if self._exchange is not None:
            more = self._exchange.begin_response(
                _number(status),
                relay.reader(content_type, encoded),
                streaming=relay.streaming,
                served=served,
                report=None if (report := raw.get(LOAD_REPORT)) is None else report.decode("latin-1"),
                headers=raw,
            )
        return relay, more

    def _body_without_headers(self, event: ResponseBody) -> Sequence[Reply]:
        """A proxy that skips response headers still sends the body."""
        self._begin_response({}, None)
        return self._response_body(event)

    def _response_body(self, event: ResponseBody) -> Sequence[Reply]:
        assert self._relay is not None
        replies = self._relay.chunk(event.body, event.end_of_stream)
        if event.end_of_stream or self._relay.one_message:
            metadata = self._end_response(over=event.end_of_stream)
            if metadata is not None and replies:
                *earlier, last = replies
                return (*earlier, replace(last, metadata=metadata))
        return replies

    def _trailers_without_headers(self, event: ResponseTrailers) -> Sequence[Reply]:
        """As may a proxy that sends neither response headers nor bodies."""
        self._begin_response({}, None)
        return self._response_trailers(event)

    def _response_trailers(self, event: ResponseTrailers) -> Sequence[Reply]:
        assert self._relay is not None
        replies = self._relay.rest()
        if event.headers and self._exchange is not None:
            self._exchange.call_ended(dict(event.headers))
        return (*replies, TrailersReply(Phase.RESPONSE, self._end_response(over=True)))

    def _end_response(self, *, over: bool) -> Metadata | None:
        """`over`: nothing more will come; otherwise the body passes unseen and the end of the stream is its end.

        Returns what the proxy is to be told with the last reply.
        """
        self._response_ended = True
        if over:
            self.state = State.DONE
            self._close(Cause.COMPLETED)
        return None if self._exchange is None else self._exchange.metadata

    # ---- the unexpected ------------------------------------------------------------------------------------------------------

    def _unexpected(self, event: Event) -> Sequence[Reply]:
        raise ProtocolError(f"{type(event).__name__} cannot come while the stream is at: {self.state.value}")

    def _refuse(self, refusal: Refusal) -> Sequence[Reply]:
        self._leave()
        self._close(Cause.BAD_REQUEST if isinstance(refusal, BadRequest) else Cause.FAILED)
        self.state = State.DONE
        self.finished = True
        if self._observing:
            return ()
        return (refused(refusal, grpc=self._asked.grpc),)


_FAULT = Internal("the picker failed to handle this request; its log has the details")


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
    (State.WAITING, RequestBody): Conversation._ignore,
    (State.WAITING, ResponseHeaders): Conversation._response_headers,
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
