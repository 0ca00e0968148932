"""A conversation that says what it hears: what a transport and a proxy cost when nothing is decided."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from picker.extproc.events import (
    BodyMode,
    BodyReply,
    Event,
    HeaderChange,
    HeadersReply,
    Modes,
    Phase,
    Reply,
    RequestBody,
    RequestHeaders,
    RequestTrailers,
    ResponseBody,
    ResponseHeaders,
    ResponseTrailers,
    StreamedBodyReply,
    TrailersReply,
)

DESTINATION = "x-gateway-destination-endpoint"


class Echo:
    """A conversation that sends requests to the endpoints in turn and passes everything on as it comes, in any body mode."""

    __slots__ = ("_headers", "_modes", "_targets")

    finished = False
    answered = True

    def __init__(self, targets: Iterator[bytes]) -> None:
        self._targets = targets
        self._modes = Modes()
        self._headers: HeadersReply | None = None

    def receive(self, event: Event) -> Sequence[Reply]:
        """As a conversation does."""
        match event:
            case RequestBody():
                return self._request_body(event)
            case ResponseBody():
                if self._modes.response_body is BodyMode.FULL_DUPLEX_STREAMED:
                    return (StreamedBodyReply(Phase.RESPONSE, event.body, event.end_of_stream),)
                return (BodyReply(Phase.RESPONSE),)
            case RequestHeaders():
                self._modes = event.modes
                change = HeaderChange([(DESTINATION, next(self._targets))])
                self._headers = HeadersReply(Phase.REQUEST, change, clear_route_cache=True)
                if event.end_of_stream or event.modes.request_body is not BodyMode.FULL_DUPLEX_STREAMED:
                    return self._held_headers()
                # With the first of the body, as a picker answers: two messages in one write.
                return ()
            case ResponseHeaders():
                return (HeadersReply(Phase.RESPONSE),)
            case RequestTrailers():
                return (*self._held_headers(), TrailersReply(Phase.REQUEST))
            case ResponseTrailers():
                return (TrailersReply(Phase.RESPONSE),)

    def _held_headers(self) -> Sequence[Reply]:
        held, self._headers = self._headers, None
        return () if held is None else (held,)

    def _request_body(self, event: RequestBody) -> Sequence[Reply]:
        if self._modes.request_body is not BodyMode.FULL_DUPLEX_STREAMED:
            return (BodyReply(Phase.REQUEST),)
        return (*self._held_headers(), StreamedBodyReply(Phase.REQUEST, event.body, event.end_of_stream))

    def end(self) -> None:
        """Nothing to settle."""
