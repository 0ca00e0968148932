"""Why a request or a configuration is refused, in domain words.

Nothing here knows HTTP or gRPC: each front door translates a `Refusal` once (`picker.extproc.conversation` to an
ImmediateResponse with the texts of the endpoint-picker contract).
"""

from __future__ import annotations

from typing import ClassVar


class Refusal(Exception):  # noqa: N818  (a refusal is an answer, not a fault)
    """A request that will not be forwarded.

    `code` is the domain word every door translates; `drop_reason` is the value of `x-llm-d-request-dropped-reason`
    (None when the contract names none); `retry_after_s` is a hint in seconds, None when retrying does not help.
    """

    code: ClassVar[str] = "Internal"

    def __init__(self, message: str, *, drop_reason: str | None = None, retry_after_s: float | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.drop_reason = drop_reason
        self.retry_after_s = retry_after_s


class BadRequest(Refusal):
    """The request itself is wrong; sending it again unchanged cannot help."""

    code = "BadRequest"


class PayloadTooLarge(Refusal):
    """The body is larger than the configured limit."""

    code = "PayloadTooLarge"


class PreconditionFailed(Refusal):
    """The client asked for something that holds nowhere now, and wants nothing else."""

    code = "PreconditionFailed"


class Rejected(Refusal):
    """Capacity exists but is contended; the client may try again later."""

    code = "ResourceExhausted"


class Evicted(Rejected):
    """Let in, and sent away again to make room for requests that matter more."""


class Unavailable(Refusal):
    """No capacity exists right now."""

    code = "ServiceUnavailable"


class Internal(Refusal):
    """Our own fault, or a deployment that cannot work as configured."""

    code = "Internal"


class ConfigError(Exception):
    """A configuration that must not be used. The text names the source, the place in it and what was expected."""


class ParameterError(ValueError):
    """A plugin's parameters are of the right shape and cannot be used. `path` is the place in them, e.g. `attributes[0].expression`."""

    def __init__(self, path: str, message: str) -> None:
        super().__init__(message)
        self.path = path


# Values of x-llm-d-request-dropped-reason (contract section 1.8).
REJECTED_SATURATED = "rejected-saturated"
REJECTED_NO_ENDPOINTS = "rejected-no-endpoints"
REJECTED_TTL = "rejected-ttl-expired"
REJECTED_CANCELLED = "rejected-context-cancelled"
REJECTED_SHUTTING_DOWN = "rejected-shutting-down"
EVICTED = "evicted"
EVICTED_PRIORITY = "evicted-priority"
