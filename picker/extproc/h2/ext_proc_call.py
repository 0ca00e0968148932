"""The ext_proc method: bytes to and from a conversation, and the door's metrics."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from time import perf_counter

from picker.extproc.codec import decode, encode
from picker.extproc.conversation import Conversation
from picker.extproc.events import Deliver, ProtocolError, Reply, ResponseBody, ResponseHeaders, ResponseTrailers
from picker.extproc.h2.call import Method, Responder
from picker.extproc.h2.status import Status, StatusError
from picker.metrics import Metrics

log = logging.getLogger(__name__)

PATH = b"/envoy.service.ext_proc.v3.ExternalProcessor/Process"

_RESPONSE_EVENTS = frozenset({ResponseHeaders, ResponseBody, ResponseTrailers})


class ExtProcMethod:
    """Makes a call for each stream; the cells of its metrics are looked up once."""

    def __init__(self, converse: Callable[[Deliver], Conversation], metrics: Metrics) -> None:
        self.converse = converse
        self.inflight = metrics.streams_inflight.cell()
        self.duration = metrics.stream_duration.cell()
        self.ended = metrics.streams_total
        self.response_time = metrics.response_processing.cell()

    def __call__(self, responder: Responder) -> ExtProcCall:
        """For the connection."""
        return ExtProcCall(self, responder)


class ExtProcCall:
    """One ext_proc stream.

    Envoy ends each stream with RST_STREAM (INTERNAL_ERROR, and no END_STREAM before it), whether the response has passed or the client
    has left; so the end of the response, as the messages tell it, decides whether a reset counts as OK or Canceled.
    """

    __slots__ = ("_conversation", "_half_closed", "_method", "_responder", "_response_s", "_started_s")

    def __init__(self, method: ExtProcMethod, responder: Responder) -> None:
        self._method = method
        self._responder = responder
        self._half_closed = False
        """The proxy has ended its side while a request of it was waiting."""
        self._conversation = method.converse(self._deliver)
        self._started_s = perf_counter()
        self._response_s = 0.0
        method.inflight.value += 1

    @property
    def finished(self) -> bool:
        """The conversation has said everything."""
        return self._conversation.finished

    def message(self, data: bytes) -> Sequence[bytes]:
        """One ProcessingRequest. Raises StatusError (INVALID_ARGUMENT) for what is none, or comes at the wrong time."""
        try:
            event = decode(data)
            if type(event) not in _RESPONSE_EVENTS:
                return [encode(reply) for reply in self._conversation.receive(event)]
            began_s = perf_counter()
            replies = [encode(reply) for reply in self._conversation.receive(event)]
            self._response_s += perf_counter() - began_s
        except ProtocolError as error:
            log.warning("ext_proc stream refused: %s", error)
            raise StatusError(Status.INVALID_ARGUMENT, str(error)) from None
        return replies

    def _deliver(self, replies: Sequence[Reply]) -> None:
        """What the conversation says unasked."""
        for reply in replies:
            self._responder.send(encode(reply))
        if self._conversation.finished or self._half_closed:
            self._responder.finish(Status.OK)

    def half_closed(self) -> bool:
        """The proxy has said everything; so have we, unless it waits for an answer."""
        self._half_closed = self._conversation.waiting
        return not self._half_closed

    def end(self, status: Status) -> None:
        """Settle."""
        method = self._method
        if status is Status.CANCELLED and self._conversation.answered:
            status = Status.OK
        try:
            self._conversation.end()
        finally:
            method.inflight.value -= 1
            method.duration.observe(perf_counter() - self._started_s)
            method.ended.cell(status.label).value += 1
            if self._response_s:
                method.response_time.observe(self._response_s)


def ext_proc(converse: Callable[[Deliver], Conversation], metrics: Metrics) -> dict[bytes, Method]:
    """The service's methods by path."""
    return {PATH: ExtProcMethod(converse, metrics)}
