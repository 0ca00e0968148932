"""What a conversation hears and says, free of protobuf and of sockets. Header names are lower-case, header values raw bytes."""

from __future__ import annotations

import enum
from collections.abc import Callable, Mapping, Sequence

import msgspec

Headers = Sequence[tuple[str, bytes]]


class BodyMode(enum.IntEnum):
    """How the proxy sends a body; numbers as in Envoy's ProcessingMode.BodySendMode."""

    NONE = 0
    STREAMED = 1
    BUFFERED = 2
    BUFFERED_PARTIAL = 3
    FULL_DUPLEX_STREAMED = 4
    GRPC = 5


class _Message(msgspec.Struct, frozen=True, gc=False):
    """Structs are made in 60 ns, frozen dataclasses in 330, and a streamed response needs two of them for each of its events."""


class Modes(_Message, frozen=True):
    """What the proxy said of itself in its first message. Proxies that say nothing run full duplex: the picker contract asks for it."""

    request_body: BodyMode = BodyMode.FULL_DUPLEX_STREAMED
    response_body: BodyMode = BodyMode.FULL_DUPLEX_STREAMED
    observability: bool = False


DEFAULT_MODES = Modes()


# ---- heard -------------------------------------------------------------------------------------------------------------------


class RequestHeaders(_Message, frozen=True):
    """The first message of a request. `subset` is the subset hint (None: none given)."""

    headers: Headers
    end_of_stream: bool = False
    subset: Sequence[str] | None = None
    modes: Modes = DEFAULT_MODES


class RequestBody(_Message, frozen=True):
    """A part of the request body. The hint may come with any message; the last one counts."""

    body: bytes
    end_of_stream: bool = False
    subset: Sequence[str] | None = None


class RequestTrailers(_Message, frozen=True):
    """The end of a request that has trailers."""

    subset: Sequence[str] | None = None


class ResponseHeaders(_Message, frozen=True):
    """`served` is the endpoint that answered, as the proxy says in its metadata; None when it does not say."""

    headers: Headers
    end_of_stream: bool = False
    served: str | None = None
    modes: Modes = DEFAULT_MODES


class ResponseBody(_Message, frozen=True):
    """A part of the response body."""

    body: bytes
    end_of_stream: bool = False


class ResponseTrailers(_Message, frozen=True):
    """The end of a response that has trailers: those of a gRPC call tell how it ended."""

    headers: Headers = ()


Event = RequestHeaders | RequestBody | RequestTrailers | ResponseHeaders | ResponseBody | ResponseTrailers


# ---- said --------------------------------------------------------------------------------------------------------------------


class Phase(enum.Enum):
    """Which half of the HTTP exchange a reply belongs to."""

    __hash__ = object.__hash__  # in C; looked up for each piece of a body

    REQUEST = "request"
    RESPONSE = "response"


class HeaderChange(_Message, frozen=True):
    """Headers to set (replacing what is there) and to remove."""

    set_headers: Headers = ()
    remove: Sequence[str] = ()


NO_CHANGE = HeaderChange()


Metadata = Mapping[str, Mapping[str, object]]
"""Dynamic metadata by namespace and key: text, numbers, and mappings of them."""


class HeadersReply(_Message, frozen=True):
    """Answers headers.

    `keep_body` (of the modes the proxy runs in) asks it to keep the response body to itself, and to tell when the response is over.
    """

    phase: Phase
    change: HeaderChange = NO_CHANGE
    clear_route_cache: bool = False
    metadata: Metadata | None = None
    keep_body: Modes | None = None


class StreamedBodyReply(_Message, frozen=True):
    """A piece of the body that replaces what the proxy sent; full duplex only. A view when it is a part of a longer body."""

    phase: Phase
    body: bytes | memoryview
    end_of_stream: bool
    metadata: Metadata | None = None


class BodyReply(_Message, frozen=True):
    """Answers one body message in the other modes. `body` None leaves it as it is."""

    phase: Phase
    body: bytes | None = None
    change: HeaderChange = NO_CHANGE
    clear_route_cache: bool = False
    metadata: Metadata | None = None


class TrailersReply(_Message, frozen=True):
    """Answers trailers; never changes them."""

    phase: Phase
    metadata: Metadata | None = None


class ImmediateReply(_Message, frozen=True):
    """The proxy answers the client itself. Ends the conversation. `grpc_status` is for calls of gRPC, which have no other."""

    status: int
    body: bytes
    set_headers: Headers = ()
    details: str = ""
    grpc_status: int | None = None


Reply = HeadersReply | StreamedBodyReply | BodyReply | TrailersReply | ImmediateReply


class ProtocolError(Exception):
    """The peer broke the protocol; the stream ends with gRPC status INVALID_ARGUMENT and this text."""


Deliver = Callable[[Sequence[Reply]], None]
"""Takes replies that no message asked for. Afterwards the conversation may be over."""


def undelivered(replies: Sequence[Reply]) -> None:
    """For conversations in which nothing is ever said unasked."""
    raise AssertionError("a conversation spoke unasked and nobody was there to hear it")
