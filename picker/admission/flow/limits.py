"""How long a request may wait, by its own word."""

from __future__ import annotations

from collections.abc import Mapping

_GRPC_UNIT_S = {"H": 3600.0, "M": 60.0, "S": 1.0, "m": 1e-3, "u": 1e-6, "n": 1e-9}
_DIGITS = 8
"""More than these are no gRPC timeout; a timeout in milliseconds needs no more either."""


def request_ttl_s(headers: Mapping[str, str], default_s: float) -> float:
    """From `x-request-timeout-ms`, else `grpc-timeout`: the client will not wait any longer, nor need we. It never lengthens the time.

    What is no timeout counts as none; 0 is none, too.
    """
    text = headers.get("x-request-timeout-ms")
    if text:
        wanted_s = int(text) / 1e3 if text.isdecimal() and len(text) <= _DIGITS else 0.0
    else:
        text = headers.get("grpc-timeout", "")
        unit_s = _GRPC_UNIT_S.get(text[-1:], 0.0)
        wanted_s = int(text[:-1]) * unit_s if unit_s and text[:-1].isdecimal() and len(text) <= _DIGITS + 1 else 0.0
    return min(wanted_s, default_s) if wanted_s > 0 else default_s
