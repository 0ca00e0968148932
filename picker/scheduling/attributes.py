"""Filter and scorer by one attribute of endpoints (contract sections 4.1 and 4.3; operators and the treatment of missing values are those
of llm-d-router's READMEs of the two plugins).

An attribute is a number that endpoints report (`customMetrics`, extractors), or that a data producer leaves for the request.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Sequence
from math import isfinite, isinf, isnan
from typing import Annotated, Literal

import msgspec

from picker.endpoint import Endpoint
from picker.endpoint_values import left_endpoint_values
from picker.errors import ParameterError
from picker.plugin import DataProducer, EndpointEventExtractor, Extractor, Handle, Parameters
from picker.request import InferenceRequest
from picker.snapshot import Candidates, Changes, ColumnMemo, Snapshot

_Key = Annotated[str, msgspec.Meta(min_length=1)]
_Column = Sequence[float | None]


class _Nested(msgspec.Struct, frozen=True, forbid_unknown_fields=True, rename="camel"):
    """A part of the parameters."""


class Threshold(_Nested, frozen=True):
    """An endpoint stays when its value compares like this with `value`."""

    operator: Literal["LessThan", "LessThanOrEqual", "GreaterThan", "GreaterThanOrEqual", "Equal", "NotEqual"]
    value: float

    def __post_init__(self) -> None:
        if isnan(self.value):
            raise ValueError("value: nothing compares with NaN")


class FilterAlgorithm(_Nested, frozen=True):
    """`threshold` is the only one."""

    type: Literal["threshold"]
    threshold: Threshold


class AttributeFilterParameters(Parameters, frozen=True):
    """`producer` names the plugin that the attribute comes from. `onMissing` says what becomes of endpoints without the attribute;
    `fallbackOnEmpty` keeps everybody when nobody is left."""

    attribute: _Key
    algorithm: FilterAlgorithm
    producer: str = ""
    on_missing: Literal["Pass", "Fail"] = "Pass"
    fallback_on_empty: bool = False


class FixedRange(_Nested, frozen=True):
    """Values outside count as the nearest end."""

    min: float
    max: float

    def __post_init__(self) -> None:
        if not (isfinite(self.min) and isfinite(self.max)):
            raise ValueError(f"min {self.min:g} and max {self.max:g} must be finite")
        if not self.min < self.max:
            raise ValueError(f"min {self.min:g} must be less than max {self.max:g}")


class AdaptiveRange(_Nested, frozen=True):
    """From the least to the greatest value among the candidates."""


class Normalization(_Nested, frozen=True):
    """One of the two; `adaptiveRange` when none is given."""

    fixed_range: FixedRange | None = None
    adaptive_range: AdaptiveRange | None = None

    def __post_init__(self) -> None:
        if self.fixed_range is not None and self.adaptive_range is not None:
            raise ValueError("give fixedRange or adaptiveRange, not both")


class ScorerAlgorithm(_Nested, frozen=True):
    """Which end of the range is the better one."""

    type: Literal["linear_lower_is_better", "linear_higher_is_better"]
    normalization: Normalization = Normalization()


class AttributeScorerParameters(Parameters, frozen=True):
    """`producer` names the plugin that the attribute comes from."""

    attribute_key: _Key
    algorithm: ScorerAlgorithm
    producer: str = ""


class _Source:
    """Where the values of an attribute are found."""

    def __init__(self, key: str, producer_name: str, key_path: str, handle: Handle) -> None:
        """Raises ParameterError, or ConfigError when there is no plugin of this name."""
        self.key = key
        self._producer_name = producer_name
        self.by_request = False
        """A data producer works them out for each request; otherwise they are what endpoints report."""
        if not producer_name:
            return
        producer = handle.plugin(producer_name, "")
        if isinstance(producer, DataProducer):
            if key not in producer.produces:
                known = ", ".join(sorted(producer.produces)) or "nothing"
                raise ParameterError(key_path, f"'{producer_name}' does not produce '{key}'; it produces {known}")
            self.by_request = True
        elif not (isinstance(producer, Extractor | EndpointEventExtractor) or getattr(producer, "reports_attributes", False)):
            raise ParameterError("producer", f"'{producer_name}' ({producer.type}) is neither an extractor nor a data producer")

    def column(self, request: InferenceRequest, snapshot: Snapshot) -> _Column:
        """Aligned with the snapshot."""
        if self.by_request:
            return left_endpoint_values(request, self._producer_name, self.key, snapshot)
        return snapshot.attribute(self.key)


_OPERATORS: dict[str, Callable[[float, float], bool]] = {
    "LessThan": operator.lt,
    "LessThanOrEqual": operator.le,
    "GreaterThan": operator.gt,
    "GreaterThanOrEqual": operator.ge,
    "Equal": operator.eq,
    "NotEqual": operator.ne,
}


class EndpointAttributeFilter:
    """Keeps endpoints by the value of one attribute. A value stays as it was last reported, however long ago.

    What is left of the endpoints seen last is kept for as long as no attribute changes.
    """

    type = "endpoint-attribute-filter"
    Parameters = AttributeFilterParameters
    experimental = True

    def __init__(self, name: str, parameters: AttributeFilterParameters, handle: Handle) -> None:
        self.name = name
        self._source = _Source(parameters.attribute, parameters.producer, "attribute", handle)
        self._compare = _OPERATORS[parameters.algorithm.threshold.operator]
        self._value = parameters.algorithm.threshold.value
        self._without = parameters.on_missing == "Pass"
        self._fallback = parameters.fallback_on_empty
        self._column: _Column = ()
        self._before: tuple[Endpoint, ...] = ()
        self._positions: Sequence[int] = ()
        self._left: tuple[Endpoint, ...] = ()

    def filter(self, request: InferenceRequest, candidates: Candidates) -> Candidates:
        """Those whose value is as wanted."""
        column = self._source.column(request, candidates.snapshot)
        if column is not self._column or candidates.endpoints is not self._before:
            left = self._of(candidates, column)
            if self._source.by_request:
                return left
            self._column, self._before, self._positions, self._left = column, candidates.endpoints, left.positions, left.endpoints
            return left
        if self._left is self._before:
            return candidates
        return Candidates(candidates.snapshot, self._positions, self._left)

    def _of(self, candidates: Candidates, column: _Column) -> Candidates:
        compare, value, without = self._compare, self._value, self._without
        left = candidates.at([i for i, v in enumerate(candidates.column(column)) if (without if v is None else compare(v, value))])
        return left if len(left) or not self._fallback else candidates


class EndpointAttributeScorer:
    """Prefers endpoints by the value of one attribute. A value counts as it was last reported, however long ago.

    What endpoints report is followed: between two requests only those are scored again whose numbers have changed, and all of them when
    the adaptive range has.
    """

    type = "endpoint-attribute-scorer"
    Parameters = AttributeScorerParameters
    bounded = True
    experimental = True

    def __init__(self, name: str, parameters: AttributeScorerParameters, handle: Handle) -> None:
        self.name = name
        key = parameters.attribute_key
        self._source = _Source(key, parameters.producer, "attributeKey", handle)
        lower = parameters.algorithm.type == "linear_lower_is_better"
        self._lower_is_better = lower
        fixed = parameters.algorithm.normalization.fixed_range
        self._fixed = fixed
        self._kept: ColumnMemo | _AdaptiveScores
        if fixed is None:
            self._kept = _AdaptiveScores(key, lower)
        else:
            low, high = fixed.min, fixed.max
            self._kept = ColumnMemo(lambda m: _score(m.attributes.get(key), low, high, lower))

    def score(self, request: InferenceRequest, candidates: Candidates) -> Sequence[float]:
        """(v - min) / (max - min), 1 minus that when lower is better. 0 without a value; in an adaptive range 1 when all values are
        equal."""
        snapshot = candidates.snapshot
        fixed, lower = self._fixed, self._lower_is_better
        if not self._source.by_request and (fixed is not None or candidates.whole):
            return candidates.column(self._kept.of(snapshot))
        values = candidates.column(self._source.column(request, snapshot))
        low, high = (fixed.min, fixed.max) if fixed is not None else _range(values)
        return [_score(v, low, high, lower) for v in values]


class _AdaptiveScores:
    """Of all endpoints of a snapshot, by what they report."""

    def __init__(self, key: str, lower_is_better: bool) -> None:
        self._key = key
        self._lower_is_better = lower_is_better
        self._changes: Changes | None = None
        self._values: list[float | None] = []
        self._low = self._high = 0.0
        self._scores: list[float] = []

    def of(self, snapshot: Snapshot) -> Sequence[float]:
        """Aligned with the snapshot; never changed afterwards."""
        if snapshot.changes is not self._changes:
            moved = snapshot.changes.since(self._changes)
            self._changes = snapshot.changes
            if moved is None:
                self._values = list(snapshot.attribute(self._key))
                self._score_all()
            else:
                self._update(snapshot, moved)
        return self._scores

    def _update(self, snapshot: Snapshot, moved: Sequence[int]) -> None:
        values, metrics, key = self._values, snapshot.metrics, self._key
        low, high = self._low, self._high
        changed: list[int] = []
        same_range = True
        for position in moved:
            old, new = values[position], metrics[position].attributes.get(key)
            if new == old:
                continue
            values[position] = new
            changed.append(position)
            if (old is not None and not low < old < high) or (new is not None and not low <= new <= high):
                same_range = False  # or perhaps not, if another one has the same value; all are scored again
        if not changed:
            return
        if not same_range:
            self._score_all()
            return
        self._scores = scores = self._scores.copy()  # a decision record keeps the last one
        for position in changed:
            scores[position] = _score(values[position], low, high, self._lower_is_better)

    def _score_all(self) -> None:
        self._low, self._high = low, high = _range(self._values)
        self._scores = [_score(v, low, high, self._lower_is_better) for v in self._values]


def _range(values: _Column) -> tuple[float, float]:
    """The least and the greatest of the values there are; of none a range that no value is in."""
    there = [v for v in values if v is not None]
    return (min(there), max(there)) if there else (float("inf"), float("-inf"))


def _score(value: float | None, low: float, high: float, lower_is_better: bool) -> float:
    """The place of the value in the range, 0..1; 1 when the range is one value, 0 without a value."""
    if value is None:
        return 0.0
    if low == high:
        return 1.0
    value = min(high, max(low, value))
    if isinf(high - low):  # ends of opposite signs near the limits of a double
        value, low, high = value / 2, low / 2, high / 2
    part = (value - low) / (high - low)
    return 1.0 - part if lower_is_better else part
