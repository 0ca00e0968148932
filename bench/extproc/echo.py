"""`python -m bench.extproc.echo`: an ext_proc server that says what it hears, on our lean transport. The floor under any picker."""

from __future__ import annotations

import argparse
import asyncio
import signal
import sys
from collections.abc import Iterator, Sequence
from itertools import cycle
from typing import Any

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


async def _serve(endpoints: Sequence[str], port: int, health_port: int) -> None:
    from picker.extproc.health import Readiness
    from picker.extproc.transport import Served, TransportOptions
    from picker.extproc.transport_h2 import H2Transport
    from picker.metrics import Metrics

    targets = cycle([endpoint.encode() for endpoint in endpoints])
    converse: Any = lambda: Echo(targets)  # noqa: E731 (a conversation in all but name)
    options = TransportOptions("127.0.0.1", port, health_port, health_on_both=False, tls=None)
    transport = H2Transport(options, Served(converse, Metrics(), Readiness()))
    await transport.start()
    over = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, over.set)
    await over.wait()
    await transport.stop()


def main(argv: Sequence[str] | None = None) -> int:
    """Serve until a signal; exit status 0."""
    import uvloop

    parser = argparse.ArgumentParser(prog="python -m bench.extproc.echo", description=__doc__, allow_abbrev=False)
    parser.add_argument("--endpoints", required=True, metavar="HOST:PORT,...")
    parser.add_argument("--grpc-port", type=int, required=True, metavar="PORT")
    parser.add_argument("--grpc-health-port", type=int, required=True, metavar="PORT")
    flags = parser.parse_args(argv)
    uvloop.run(_serve(flags.endpoints.split(","), flags.grpc_port, flags.grpc_health_port))
    return 0


if __name__ == "__main__":
    sys.exit(main())
