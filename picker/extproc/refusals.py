"""What a refusal looks like to the proxy (contract section 1.8)."""

from __future__ import annotations

from picker.errors import Evicted, Refusal
from picker.extproc.events import ImmediateReply
from picker.extproc.headers import DROP_REASON

HTTP_STATUS = {
    "BadRequest": 400,
    "PreconditionFailed": 412,
    "PayloadTooLarge": 413,
    "ResourceExhausted": 429,
    "Internal": 500,
    "ServiceUnavailable": 503,
}

GRPC_STATUS = {
    "BadRequest": 3,
    "PreconditionFailed": 9,
    "PayloadTooLarge": 8,
    "ResourceExhausted": 8,
    "Internal": 13,
    "ServiceUnavailable": 14,
}
"""INVALID_ARGUMENT, FAILED_PRECONDITION, RESOURCE_EXHAUSTED, INTERNAL, UNAVAILABLE. Left to itself the proxy would translate the HTTP
status: 400 to INTERNAL, 429 to UNAVAILABLE (gRPC's http-grpc-status-mapping.md)."""


def refused(refusal: Refusal, *, grpc: bool = False) -> ImmediateReply:
    """The proxy's answer in place of a model server's; `grpc`: to a client that called over gRPC."""
    headers: list[tuple[str, bytes]] = []
    if refusal.drop_reason is not None:
        headers.append((DROP_REASON, refusal.drop_reason.encode()))
    if refusal.retry_after_s is not None:
        headers.append(("retry-after", b"%d" % max(1, round(refusal.retry_after_s))))
    # The reference sends the text of an eviction as it is.
    text = refusal.message if isinstance(refusal, Evicted) else f"inference error: {refusal.code} - {refusal.message}"
    return ImmediateReply(
        HTTP_STATUS[refusal.code],
        text.encode(),
        headers,
        details=f"fairlead_{refusal.code}",
        grpc_status=GRPC_STATUS[refusal.code] if grpc else None,
    )
