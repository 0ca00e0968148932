"""The header blocks this server answers with: made once, or by hand for the rare ones.

All are literals without indexing or static indices, and the first block of a connection begins with "dynamic table size 0", so the peer's
HEADER_TABLE_SIZE never matters.
"""

from __future__ import annotations

from picker.extproc.h2.grpc_messages import ENCODINGS
from picker.extproc.h2.headers import literal
from picker.extproc.h2.status import Status

TABLE_SIZE_0 = b"\x20"
_STATUS_200 = b"\x88"
_CONTENT_TYPE = literal([(b"content-type", b"application/grpc")])

HEAD = _STATUS_200 + _CONTENT_TYPE
TRAILERS_OK = literal([(b"grpc-status", b"0")])

_TEXT_BYTES = 1_000
_UNESCAPED = frozenset(range(0x20, 0x7F)) - {ord("%")}


def trailers(status: Status, text: str, *, accept_encoding: bool = False) -> bytes:
    """`accept_encoding`: say which message encodings would have been understood."""
    if status is Status.OK:
        return TRAILERS_OK
    fields = [(b"grpc-status", b"%d" % status), (b"grpc-message", percent_encoded(text))]
    if accept_encoding:
        fields.append((b"grpc-accept-encoding", b",".join([b"identity", *ENCODINGS])))
    return literal(fields)


def percent_encoded(text: str) -> bytes:
    """As grpc-message wants it: UTF-8, everything but printable ASCII as %XX; cut to about a thousand characters."""
    return b"".join([bytes((byte,)) if byte in _UNESCAPED else b"%%%02X" % byte for byte in text[:_TEXT_BYTES].encode("utf-8", "replace")])


def http_refusal(code: int, text: str) -> tuple[bytes, bytes]:
    """Header block and body for a request that is not gRPC at all."""
    body = text.encode() + b"\n"
    fields = [(b":status", b"%d" % code), (b"content-type", b"text/plain"), (b"content-length", b"%d" % len(body))]
    if code == 405:
        fields.append((b"allow", b"POST"))
    return literal(fields), body
