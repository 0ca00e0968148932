"""Numbers per endpoint that a data producer has worked out for one request: how it leaves them, and how others find them.

What endpoints report of themselves is in `Snapshot.attribute`; this is for what depends on the request, too. A producer lists the key in
its `produces` and leaves one column; `endpoint-attribute-scorer` and `endpoint-attribute-filter` read it when their `producer` names it.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import isfinite

from picker.request import InferenceRequest
from picker.snapshot import Candidates, Snapshot


class EndpointValues:
    """A column aligned with `snapshot.endpoints`; None where there is no number."""

    __slots__ = ("snapshot", "values")

    def __init__(self, snapshot: Snapshot, values: Sequence[float | None]) -> None:
        self.snapshot = snapshot
        self.values = values


def leave_endpoint_values(
    request: InferenceRequest, producer_name: str, key: str, candidates: Candidates, values: Sequence[float | None]
) -> None:
    """For the producer called `producer_name` (its `self.name`), from its `produce`. `values` are aligned with `candidates.endpoints`.

    None, infinity and NaN are no number. Raises ValueError when there are more or fewer values than candidates, TypeError for what is
    no number at all.
    """
    if len(values) != len(candidates):
        raise ValueError(f"{producer_name} left {len(values)} values of {key} for {len(candidates)} endpoints")
    numbers = [float(v) if v is not None and isfinite(v) else None for v in values]
    if not candidates.whole:
        column: list[float | None] = [None] * len(candidates.snapshot)
        for position, number in zip(candidates.positions, numbers, strict=True):
            column[position] = number
        numbers = column
    request.working[_place(producer_name, key)] = EndpointValues(candidates.snapshot, numbers)


def left_endpoint_values(request: InferenceRequest, producer_name: str, key: str, snapshot: Snapshot) -> Sequence[float | None]:
    """What the producer left, aligned with `snapshot.endpoints`; None everywhere when it left nothing for these endpoints, e.g. because
    it failed."""
    found = request.working.get(_place(producer_name, key))
    if isinstance(found, EndpointValues) and found.snapshot is snapshot:
        return found.values
    return [None] * len(snapshot)


def _place(producer_name: str, key: str) -> str:
    return f"{key}/{producer_name}"
