"""gRPC status: the codes this server sends, and the error that carries one."""

from __future__ import annotations

import enum


class Status(enum.IntEnum):
    """Numbers of the wire; `label` is the name metrics use."""

    OK = 0
    CANCELLED = 1
    INVALID_ARGUMENT = 3
    DEADLINE_EXCEEDED = 4
    RESOURCE_EXHAUSTED = 8
    UNIMPLEMENTED = 12
    INTERNAL = 13
    UNAVAILABLE = 14

    @property
    def label(self) -> str:
        """As gRPC metrics spell it (Go's names)."""
        return _LABELS[self]


_LABELS = {
    Status.OK: "OK",
    Status.CANCELLED: "Canceled",
    Status.INVALID_ARGUMENT: "InvalidArgument",
    Status.DEADLINE_EXCEEDED: "DeadlineExceeded",
    Status.RESOURCE_EXHAUSTED: "ResourceExhausted",
    Status.UNIMPLEMENTED: "Unimplemented",
    Status.INTERNAL: "Internal",
    Status.UNAVAILABLE: "Unavailable",
}


class StatusError(Exception):
    """Ends one call with `status` and a text for the peer."""

    def __init__(self, status: Status, text: str) -> None:
        super().__init__(text)
        self.status = status
        self.text = text
