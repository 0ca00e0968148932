"""What the scheduler sees: the endpoints at one moment, and which of them are still in the running.

Columns are aligned with `Snapshot.endpoints`. A scorer that reads only columns can keep its result for as long as it is handed the
same snapshot (`candidates.snapshot is self._last`). In a large pool nearly every request sees a new one, in which a few endpoints have
other numbers: `ColumnMemo` keeps a result up with those, and `Changes` says which they are. Sets of endpoints are positions; the prefix
index uses int bitmasks over `Snapshot.bits`.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Sequence
from typing import TypeVar

from picker.endpoint import Endpoint, EndpointLoad, EndpointMetrics

T = TypeVar("T")

_HISTORY = 1000
_HISTORY_PER_ENDPOINT = 8
"""A longer history is begun anew; whoever follows it then starts afresh."""


class Changes:
    """A point in the history of a pool's numbers, as long as it has the same endpoints."""

    __slots__ = ("_length", "_positions")

    def __init__(self, positions: list[int]) -> None:
        """`positions` is the history so far; its owner only ever appends to it."""
        self._positions = positions
        self._length = len(positions)

    def since(self, earlier: Changes | None) -> Sequence[int] | None:
        """Positions that have changed after `earlier`, some perhaps twice. None when the two do not compare: start afresh."""
        if earlier is None or earlier._positions is not self._positions or earlier._length > self._length:
            return None
        return self._positions[earlier._length : self._length]


class Snapshot:
    """Endpoints, their metrics and their live loads, aligned by position.

    The columns never change, and one that is the same as in the last snapshot is the same object. The loads are live, and so is the
    age of the metrics: a report that only confirms the numbers renews `metrics` without making a new snapshot.
    """

    __slots__ = (
        "_attributes", "_busy", "_names", "_places", "adapter_changes", "bits", "changes", "endpoints",
        "kv_usage", "loads", "metrics", "running", "version", "waiting",
    )  # fmt: skip

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
        self.changes = Changes([])
        """Of anything that an endpoint reported."""
        self.adapter_changes = Changes([])
        """Of LoRA adapters and their slots alone; the same object as in the last snapshot when there were none."""
        self._busy: Collection[EndpointLoad] | None = None
        self._places: dict[EndpointLoad, int] = {}
        self._attributes: dict[str, Sequence[float | None]] = {}
        self._names: dict[str, Sequence[frozenset[str] | None]] = {}

    def __len__(self) -> int:
        return len(self.endpoints)

    def attribute(self, key: str) -> Sequence[float | None]:
        """The number each endpoint reports under this key (`customMetrics`, extractors), None where it never reported one.

        Computed once and kept until an attribute of some endpoint changes: ask for keys of the configuration, never for a client's.
        """
        column = self._attributes.get(key)
        if column is None:
            column = self._attributes[key] = tuple([m.attributes.get(key) for m in self.metrics])
        return column

    def names(self, key: str) -> Sequence[frozenset[str] | None]:
        """The set of words each endpoint reports under this key, e.g. `models`; None where it never did. Kept as `attribute` is."""
        column = self._names.get(key)
        if column is None:
            column = self._names[key] = tuple([m.names.get(key) for m in self.metrics])
        return column

    def unseen_at(self) -> Sequence[int] | None:
        """Positions of the endpoints whose `EndpointLoad.unseen` is not 0; None when they are so many that one may as well look."""
        busy = self._busy
        if busy is None or 2 * len(busy) > len(self.endpoints):
            return None
        places = self._places
        return [places[load] for load in busy if load in places]

    def candidates(self) -> Candidates:
        """All endpoints of this snapshot."""
        return Candidates(self, range(len(self.endpoints)), self.endpoints)


class Board:
    """Where reports are noted and snapshots taken, for as long as the pool has the same endpoints.

    At 1,000 endpoints a report and the new snapshot cost 4 µs when one column has changed, 7 when all have; other endpoints cost 240.
    """

    __slots__ = (
        "_adapter_history", "_adapters_moved", "_attributes_moved", "_confirmed", "_history", "_kv_moved", "_kv_usage", "_last", "_metrics",
        "_moved", "_running", "_running_moved", "_waiting", "_waiting_moved",
    )  # fmt: skip

    def __init__(self, first: Snapshot, busy: Collection[EndpointLoad]) -> None:
        """`busy` are the loads that have `unseen` requests, kept up by themselves; there may be some of other endpoints."""
        self._metrics = list(first.metrics)
        self._waiting = list(first.waiting)
        self._running = list(first.running)
        self._kv_usage = list(first.kv_usage)
        self._history: list[int] = []
        self._adapter_history: list[int] = []
        first.changes = Changes(self._history)
        first.adapter_changes = Changes(self._adapter_history)
        first._busy = busy
        first._places = {load: position for position, load in enumerate(first.loads)}
        self._last = first
        self._moved = self._waiting_moved = self._running_moved = self._kv_moved = self._adapters_moved = self._confirmed = False
        self._attributes_moved = False

    @property
    def version(self) -> int:
        """Of the last snapshot."""
        return self._last.version

    def report(self, position: int, new: EndpointMetrics) -> None:
        """What the endpoint at this position says of itself now."""
        old = self._metrics[position]
        self._metrics[position] = new
        if not new.differs(old):
            self._confirmed = True
            return
        if old.waiting != new.waiting:
            self._waiting[position] = new.waiting
            self._waiting_moved = True
        if old.running != new.running:
            self._running[position] = new.running
            self._running_moved = True
        if old.kv_usage != new.kv_usage:
            self._kv_usage[position] = new.kv_usage
            self._kv_moved = True
        if (
            old.active_adapters != new.active_adapters
            or old.waiting_adapters != new.waiting_adapters
            or old.max_adapters != new.max_adapters
        ):
            self._adapter_history.append(position)
            self._adapters_moved = True
        if old.attributes_differ(new):
            self._attributes_moved = True
        self._history.append(position)
        self._moved = True

    def snapshot(self) -> Snapshot:
        """What holds now; the same object as long as nothing has changed that a scorer could look at.

        Reports that only confirmed the numbers renew the last snapshot's `metrics` in place, so that ages are always true.
        """
        last = self._last
        if self._moved:
            self._last = self._successor(last)
            self._moved = self._waiting_moved = self._running_moved = self._kv_moved = self._adapters_moved = False
            self._attributes_moved = False
        elif self._confirmed:
            last.metrics = tuple(self._metrics)
        self._confirmed = False
        return self._last

    def _successor(self, last: Snapshot) -> Snapshot:
        most = _HISTORY_PER_ENDPOINT * len(last.endpoints) + _HISTORY
        if len(self._history) > most:
            self._history = []
        if len(self._adapter_history) > most:
            self._adapter_history = []
        new = Snapshot.__new__(Snapshot)
        new.version = last.version + 1
        new.endpoints = last.endpoints
        new.loads = last.loads
        new.bits = last.bits
        new._busy = last._busy
        new._places = last._places
        new._attributes = {} if self._attributes_moved else last._attributes
        new._names = {} if self._attributes_moved else last._names
        new.metrics = tuple(self._metrics)
        new.waiting = tuple(self._waiting) if self._waiting_moved else last.waiting
        new.running = tuple(self._running) if self._running_moved else last.running
        new.kv_usage = tuple(self._kv_usage) if self._kv_moved else last.kv_usage
        new.changes = Changes(self._history)
        new.adapter_changes = Changes(self._adapter_history) if self._adapters_moved else last.adapter_changes
        return new


class ColumnMemo:
    """One number per endpoint that depends on what it reported and on nothing else; computed again only where that has changed."""

    __slots__ = ("_changes", "_compute", "_values")

    def __init__(self, compute: Callable[[EndpointMetrics], float]) -> None:
        self._compute = compute
        self._changes: Changes | None = None
        self._values: list[float] = []

    def of(self, snapshot: Snapshot) -> Sequence[float]:
        """Aligned with `snapshot.endpoints`; never changed afterwards, the same object for the same snapshot."""
        if snapshot.changes is not self._changes:
            moved = snapshot.changes.since(self._changes)
            compute, metrics = self._compute, snapshot.metrics
            if moved is None:
                self._values = [compute(m) for m in metrics]
            else:
                self._values = values = self._values.copy()
                for position in moved:
                    values[position] = compute(metrics[position])
            self._changes = snapshot.changes
        return self._values


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

    def with_unseen(self, reported: Sequence[int]) -> list[int]:
        """A column of the snapshot, e.g. `waiting`, plus the requests that its reports cannot know about (`EndpointLoad.unseen`)."""
        raised = self.snapshot.unseen_at() if self.whole else None
        if raised is None:
            return [q + load.unseen for q, load in zip(self.column(reported), self.loads, strict=True)]
        values = list(reported)
        loads = self.snapshot.loads
        for position in raised:
            values[position] += loads[position].unseen
        return values

    def keep(self, wanted: Callable[[Endpoint], bool]) -> Candidates:
        """Those for which `wanted(endpoint)` is true."""
        return self.at([i for i, e in enumerate(self.endpoints) if wanted(e)])

    def at(self, indices: Iterable[int]) -> Candidates:
        """Those at the given indices of `endpoints`, which must ascend."""
        chosen = list(indices)
        if len(chosen) == len(self.endpoints):
            return self
        return Candidates(self.snapshot, [self.positions[i] for i in chosen], tuple([self.endpoints[i] for i in chosen]))
