"""Durations as the field writes them."""

from __future__ import annotations

import re

_DURATION = re.compile(r"(?P<number>\d+(?:\.\d*)?|\.\d+)(?P<unit>ns|us|µs|μs|ms|s|m|h)")
_UNIT_S = {"ns": 1e-9, "us": 1e-6, "µs": 1e-6, "μs": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0, "h": 3600.0}


def parse_duration_s(text: str) -> float:
    """A Go duration such as `200ms` or `1m30s`, in seconds. Raises ValueError saying what was expected."""
    if text == "0":
        return 0.0
    matches = list(_DURATION.finditer(text))
    if not matches or "".join(m.group() for m in matches) != text:
        raise ValueError(f"'{text}' is not a duration; expected e.g. 200ms, 5s or 1m30s")
    return sum(float(m["number"]) * _UNIT_S[m["unit"]] for m in matches)
