"""What the scheduler sees: the endpoints at one moment, and which of them are still in the running.

Columns are aligned with `Snapshot.endpoints`. A scorer that reads only columns can keep its result for as long as it is handed the
same snapshot (`candidates.snapshot is self._last`). Sets of endpoints are positions; the prefix index uses int bitmasks over
`Snapshot.bits`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import TypeVar

from picker.endpoint import Endpoint, EndpointLoad, EndpointMetrics

T = TypeVar("T")


class Snapshot:
    """Endpoints, their metrics and their live loads, aligned by position.

    The columns never change. The loads are live, and so is the age of the metrics: a report that only confirms the numbers renews
    `metrics` without making a new snapshot.
    """

    __slots__ = ("bits", "endpoints", "kv_usage", "loads", "metrics", "running", "version", "waiting")

    def __init__(
        self,
        version: int,
        endpoints: Sequence[Endpoint],
        metrics: Sequence[EndpointMetrics],
        loads: Sequence[EndpointLoad],
        bits: Sequence[int],
    ) -> None:
        self.version = version
        self.endpoints = tuple(endpoints)
        self.metrics = tuple(metrics)
        self.loads = tuple(loads)
        self.bits = tuple(bits)
        """A small number per endpoint that stays its own for its whole life, for use as a bit position."""
        self.waiting = tuple([m.waiting for m in metrics])
        self.running = tuple([m.running for m in metrics])
        self.kv_usage = tuple([m.kv_usage for m in metrics])

    def __len__(self) -> int:
        return len(self.endpoints)

    def candidates(self) -> Candidates:
        """All endpoints of this snapshot."""
        return Candidates(self, range(len(self.endpoints)), self.endpoints)


class Candidates:
    """The endpoints of a snapshot that are still in the running, in snapshot order."""

    __slots__ = ("endpoints", "positions", "snapshot", "whole")

    def __init__(self, snapshot: Snapshot, positions: Sequence[int], endpoints: tuple[Endpoint, ...]) -> None:
        self.snapshot = snapshot
        self.positions = positions
        self.endpoints = endpoints
        self.whole = len(endpoints) == len(snapshot.endpoints)

    def __len__(self) -> int:
        return len(self.endpoints)

    def column(self, values: Sequence[T]) -> Sequence[T]:
        """`values` is aligned with the snapshot; the result with these candidates."""
        return values if self.whole else [values[p] for p in self.positions]

    @property
    def metrics(self) -> Sequence[EndpointMetrics]:
        """Last reported metrics, aligned with `endpoints`."""
        return self.column(self.snapshot.metrics)

    @property
    def loads(self) -> Sequence[EndpointLoad]:
        """Live in-flight loads, aligned with `endpoints`."""
        return self.column(self.snapshot.loads)

    def keep(self, wanted: Callable[[Endpoint], bool]) -> Candidates:
        """Those for which `wanted(endpoint)` is true."""
        return self.at([i for i, e in enumerate(self.endpoints) if wanted(e)])

    def at(self, indices: Iterable[int]) -> Candidates:
        """Those at the given indices of `endpoints`, which must ascend."""
        chosen = list(indices)
        if len(chosen) == len(self.endpoints):
            return self
        return Candidates(self.snapshot, [self.positions[i] for i in chosen], tuple([self.endpoints[i] for i in chosen]))
