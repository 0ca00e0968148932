"""Durations and sizes as the field writes them."""

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


_QUANTITY = re.compile(r"(\d+(?:\.\d+)?)\s*([KMGT]i?)?B?", re.IGNORECASE)
_FACTORS = {"": 1, "k": 10**3, "m": 10**6, "g": 10**9, "t": 10**12, "ki": 2**10, "mi": 2**20, "gi": 2**30, "ti": 2**40}


def parse_quantity(text: str) -> int:
    """A size such as `512KiB`, `10Mi`, `25MB`, `1G` or `5000`. Raises ValueError saying what was expected."""
    match = _QUANTITY.fullmatch(text.strip())
    if match is None:
        raise ValueError(f"'{text}': expected a size such as 512KiB, 10MiB or 25MB")
    return int(float(match[1]) * _FACTORS[(match[2] or "").lower()])
