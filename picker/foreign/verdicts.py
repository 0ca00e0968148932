"""Whether what a foreign plugin returned can be used; each check returns it in the form that the stages expect, or raises Invalid."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import isfinite
from numbers import Real
from operator import index
from typing import Any

from picker.endpoint import Endpoint
from picker.plugin import Extracted
from picker.request import ParsedBody, check_header, check_metadata
from picker.snapshot import Candidates


class Invalid(Exception):  # noqa: N818  (about a value, like the errors of msgspec)
    """A value that a plugin must not return. `instead` is what can be saved of it; None is nothing."""

    def __init__(self, text: str, instead: Any = None) -> None:
        super().__init__(text)
        self.instead = instead


def scores(raw: Any, request: object, candidates: Candidates) -> Sequence[float]:
    """Numbers in 0..1 aligned with the candidates. Those that are not finite count as 0, others outside are clamped.

    Three passes in C (sum, min, max) instead of one in Python: 10 times cheaper where nothing is to be mended.
    """
    endpoints = candidates.endpoints
    if isinstance(raw, Mapping):
        if raw and not isinstance(next(iter(raw)), Endpoint):
            raise Invalid(f"a mapping by {type(next(iter(raw))).__name__}; expected one by Endpoint")
        get = raw.get
        values: list[float] = [get(e, 0.0) for e in endpoints]
    elif isinstance(raw, str | bytes) or not hasattr(raw, "__len__"):
        raise Invalid(f"a {type(raw).__name__}; expected a sequence of numbers or a mapping by Endpoint")
    else:
        values = list(raw)
        if len(values) != len(endpoints):
            raise Invalid(f"{len(values)} scores for {len(endpoints)} endpoints")
    try:
        total = sum(values)
        if type(total) is not float and type(total) is not int:  # e.g. of numpy: nothing of a library stays in decision records
            values = [float(v) for v in values]
            total = sum(values)
        if not isfinite(total):
            finite = [min(1.0, max(0.0, v)) if isfinite(v) else 0.0 for v in values]
            if all(map(isfinite, values)):  # each is, only their sum is not
                return finite
            raise Invalid("a score that is not a finite number", finite)
        return values if min(values) >= 0.0 and max(values) <= 1.0 else [min(1.0, max(0.0, v)) for v in values]
    except (TypeError, ValueError, OverflowError) as error:
        raise Invalid(f"a score that is not a number ({error})") from None


def kept(left: object, request: object, candidates: Candidates) -> Candidates:
    """Some of the candidates, in their order."""
    if left is candidates:
        return candidates
    if not isinstance(left, Candidates):
        raise Invalid(f"a {type(left).__name__}; expected Candidates, e.g. candidates.keep(...)")
    positions = left.positions
    if left.snapshot is not candidates.snapshot or len(left.endpoints) != len(positions):
        raise Invalid("candidates of another snapshot")
    here = range(len(left.snapshot)) if candidates.whole else set(candidates.positions)
    last = -1
    for position in positions:
        if position <= last or position not in here:
            raise Invalid("candidates that were taken out before, or in another order; see Candidates.at")
        last = position
    return left


def picked(chosen: Any, request: object, candidates: Candidates, totals: object) -> Sequence[int]:
    """Different indices of candidates, at least one."""
    if isinstance(chosen, str | bytes) or not hasattr(chosen, "__len__"):
        raise Invalid(f"a {type(chosen).__name__}; expected a sequence of indices, best first")
    try:
        indices = [index(i) for i in chosen]
    except TypeError as error:
        raise Invalid(f"something that is no index ({error})") from None
    if not indices:
        raise Invalid("no endpoint; expected at least one index")
    if min(indices) < 0 or max(indices) >= len(candidates):
        raise Invalid(f"an index outside 0..{len(candidates) - 1}: {indices[:5]}")
    if len(set(indices)) != len(indices):
        raise Invalid(f"an endpoint twice: {indices[:5]}")
    return indices


def parsed(body: Any, *_: object) -> ParsedBody:
    """A ParsedBody."""
    if not isinstance(body, ParsedBody):
        raise Invalid(f"a {type(body).__name__}; expected a ParsedBody")
    return body


def fullness(value: Any, *_: object) -> float:
    """A finite number that is not negative."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not isfinite(value) or value < 0:
        raise Invalid(f"{value!r:.80}; expected a finite number, 0 or more")
    return float(value)


def order_key(value: Any, *_: object) -> tuple[float, ...]:
    """A tuple of numbers, so that any two can be compared."""
    values = tuple(value) if isinstance(value, tuple | list) else (value,)
    if not values or not all(isinstance(v, Real) and v == v for v in values):
        raise Invalid(f"{value!r:.80}; expected a number or a tuple of numbers")
    return values


def ceilings(values: Any, priorities: Sequence[int], saturation: float) -> Sequence[float]:
    """A number for each priority."""
    if isinstance(values, str | bytes) or not isinstance(values, Sequence):
        raise Invalid(f"a {type(values).__name__}; expected a sequence of numbers")
    if len(values) != len(priorities):
        raise Invalid(f"{len(values)} ceilings for {len(priorities)} priorities")
    if not all(isinstance(v, Real) and v == v for v in values):
        raise Invalid(f"{values!r:.80}; expected numbers")
    return values


def truth(value: object, *_: object) -> bool:
    """True or False: what forgets to return something must not decide."""
    if not isinstance(value, bool):
        raise Invalid(f"{value!r:.80}; expected True or False")
    return value


def extracted(found: Any, *_: object) -> Extracted | None:
    """What an extractor found; None is nothing."""
    if found is not None and not isinstance(found, Extracted):
        raise Invalid(f"a {type(found).__name__}; expected Extracted or None")
    return found


def profiles(chosen: Any, request: object, names: Sequence[str]) -> Sequence[str]:
    """Known profiles, at least one."""
    if isinstance(chosen, str) or not isinstance(chosen, Sequence) or not chosen:
        raise Invalid(f"{chosen!r:.80}; expected a sequence of profile names")
    if unknown := [name for name in chosen if name not in names]:
        raise Invalid(f"a profile that is not configured: {unknown[0]!r:.80}")
    return chosen


def primary(chosen: Any, results: Mapping[str, object]) -> str:
    """A profile that has run."""
    if not isinstance(chosen, str) or chosen not in results:
        raise Invalid(f"{chosen!r:.80}; expected one of {', '.join(results)}")
    return chosen


def headers(given: Any, *_: object) -> Mapping[str, str] | None:
    """Header values by lower-case name; None is none. Nothing that would end a header line early."""
    if given is None:
        return None
    if not isinstance(given, Mapping):
        raise Invalid(f"a {type(given).__name__}; expected a mapping of header names to values, or None")
    try:
        for name, value in given.items():
            check_header(name, value)
    except ValueError as error:
        raise Invalid(str(error)) from None
    return given


def metadata(given: Any, *_: object) -> Mapping[str, Mapping[str, object]] | None:
    """Mappings by namespace; None is none."""
    if given is None:
        return None
    if not isinstance(given, Mapping) or not all(isinstance(inner, Mapping) for inner in given.values()):
        raise Invalid(f"{given!r:.80}; expected values by namespace and key, or None")
    try:
        check_metadata(given)
    except ValueError as error:
        raise Invalid(str(error)) from None
    return given
