"""From a request's head to what is to be done: a method to call, a gRPC status at once, or an HTTP answer for what is not gRPC."""

from __future__ import annotations

from dataclasses import dataclass

from picker.extproc.h2 import responses
from picker.extproc.h2.call import Method, Methods
from picker.extproc.h2.grpc_messages import ENCODINGS, MessageReader, timeout_s
from picker.extproc.h2.headers import RequestHead
from picker.extproc.h2.limits import Limits
from picker.extproc.h2.status import Status

_GRPC = b"application/grpc"


@dataclass(frozen=True, slots=True)
class Opening:
    """`method` None: end the call with `status` and `text`."""

    method: Method | None
    encoding: bytes = b"identity"
    max_message_bytes: int = 0
    timeout_s: float | None = None
    status: Status = Status.OK
    text: str = ""
    accept_encoding: bool = False

    def reader(self) -> MessageReader:
        """For this call's messages."""
        return MessageReader(self.encoding, self.max_message_bytes)


@dataclass(frozen=True, slots=True)
class HttpRefusal:
    """Header block and body."""

    block: bytes
    body: bytes


NOT_POST = HttpRefusal(*responses.http_refusal(405, "gRPC is spoken here: POST only"))
NOT_GRPC = HttpRefusal(*responses.http_refusal(415, "gRPC is spoken here: content-type application/grpc only"))


def opening(head: RequestHead, methods: Methods, limits: Limits) -> Opening | HttpRefusal:
    """What a well-formed head asks for."""
    if head.method != b"POST":
        return NOT_POST
    kind = head.content_type
    if not kind.startswith(_GRPC) or kind[len(_GRPC) : len(_GRPC) + 1] not in (b"", b"+", b";"):
        return NOT_GRPC
    if head.size_bytes > limits.header_list_bytes:
        return _refused(
            Status.RESOURCE_EXHAUSTED, f"headers of {head.size_bytes} bytes are larger than the limit of {limits.header_list_bytes}"
        )
    method = methods.get(head.path)
    if method is None:
        return _refused(Status.UNIMPLEMENTED, f"unknown method {head.path.decode('utf-8', 'replace')[:200]}")
    if head.encoding != b"identity" and head.encoding not in ENCODINGS:
        text = f"messages encoded with {head.encoding.decode('utf-8', 'replace')[:50]} are not understood"
        return Opening(None, status=Status.UNIMPLEMENTED, text=text, accept_encoding=True)
    limit_s = None
    if head.timeout is not None:
        limit_s = timeout_s(head.timeout)
        if limit_s is None:
            return _refused(Status.INTERNAL, "grpc-timeout cannot be read")
    return Opening(method, head.encoding, limits.max_message_bytes, limit_s)


def _refused(status: Status, text: str) -> Opening:
    return Opening(None, status=status, text=text)
