"""The one owner of the list of endpoints and of what is known about each.

Discovery sources say which endpoints exist, the scraper what they report and whether they answer, exchanges what is in flight.
All of it is plain synchronous code on the event loop's thread: there is no lock, and no state between two awaits that is half done.
"""

from __future__ import annotations

import heapq
import logging
import time
from collections.abc import Callable, Collection, Iterable, Sequence

from picker.datalayer.load_report import LoadReport
from picker.datalayer.merge import merged
from picker.datalayer.subset import AddressIndex, match_subset
from picker.endpoint import NEVER_SCRAPED, Endpoint, EndpointLoad, EndpointMetrics
from picker.plugin import Extracted
from picker.snapshot import Board, Candidates, Snapshot

log = logging.getLogger(__name__)

_MAX_LOGGED_DUPLICATES = 1000


class EndpointState:
    """One endpoint's place in the datastore. Written by the datastore only; lives on after removal for whoever still holds it."""

    __slots__ = ("_position", "added_s", "alive", "bit", "endpoint", "load", "metrics", "report", "source")

    def __init__(self, source: str, endpoint: Endpoint, bit: int, added_s: float, load: EndpointLoad) -> None:
        self.source = source
        self.endpoint = endpoint
        self.bit = bit
        self.added_s = added_s
        """Monotonic seconds at which the endpoint became known."""
        self.load = load
        self.metrics = NEVER_SCRAPED
        self.report: LoadReport | None = None
        """What a response header told last."""
        self.alive = True
        self._position = -1  # in the snapshot; -1 = not there


Changed = Callable[[EndpointState], None]
"""Called with the state of an endpoint whose labels have changed."""
Subscriber = Callable[[Sequence[EndpointState], Sequence[EndpointState]], None]
"""Called with the states added and the states removed, after the fact."""


class Datastore:
    """Endpoints of all sources, one per `host:port`, and the snapshots that the scheduler reads."""

    def __init__(self, *, now: Callable[[], float] = time.monotonic) -> None:
        """`now` is monotonic time in seconds."""
        self._now = now
        self._wanted: dict[str, tuple[Endpoint, ...]] = {}
        self._states: dict[str, EndpointState] = {}
        self._subscribers: list[Subscriber] = []
        self._changed: list[Changed] = []
        self._bits = _Bits()
        self._logged_duplicates: set[tuple[str, str]] = set()
        self._members: list[EndpointState] = []
        self._busy: set[EndpointLoad] = set()
        self._board = Board(Snapshot(0, (), (), (), ()), self._busy)
        self._index = AddressIndex(())
        self._members_changed = False

    def set_endpoints(self, source: str, endpoints: Iterable[Endpoint]) -> None:
        """The full list of one discovery source, which replaces its last one; an empty list takes all its endpoints away.

        An endpoint with the same namespace, name, address and port keeps its bit, load and metrics, even if its labels changed.
        """
        listed = tuple(endpoints)
        if listed:
            self._wanted[source] = listed
        else:
            self._wanted.pop(source, None)
        chosen = self._choose()
        removed = [s for key, s in self._states.items() if key not in chosen or _identity(chosen[key][1]) != _identity(s.endpoint)]
        for state in removed:
            del self._states[state.endpoint.host_port]
        if removed:
            self._members_changed = True
            self._notify((), removed)
            for state in removed:
                self._bits.give_back(state)
        added = [new for key, (owner, endpoint) in chosen.items() if (new := self._keep_or_add(key, owner, endpoint)) is not None]
        if added:
            self._members_changed = True
            self._notify(added, ())

    def _choose(self) -> dict[str, tuple[str, Endpoint]]:
        """One endpoint for each `host:port`: the one we have if it is still wanted, else the first one listed."""
        chosen: dict[str, tuple[str, Endpoint]] = {}
        for source, endpoints in self._wanted.items():
            for endpoint in endpoints:
                key = endpoint.host_port
                rival = chosen.get(key)
                if rival is None:
                    chosen[key] = (source, endpoint)
                    continue
                state = self._states.get(key)
                loser = endpoint
                if state is not None and _identity(state.endpoint) == _identity(endpoint) != _identity(rival[1]):
                    chosen[key] = (source, endpoint)
                    loser = rival[1]
                self._log_duplicate(key, loser)
        return chosen

    def _log_duplicate(self, key: str, loser: Endpoint) -> None:
        entry = (key, str(loser))
        if entry not in self._logged_duplicates and len(self._logged_duplicates) < _MAX_LOGGED_DUPLICATES:
            self._logged_duplicates.add(entry)
            log.warning("endpoint %s is dropped: %s is already taken", loser, key)

    def _keep_or_add(self, key: str, source: str, endpoint: Endpoint) -> EndpointState | None:
        """The new state, None if there was one already."""
        state = self._states.get(key)
        if state is None:
            state = self._states[key] = EndpointState(source, endpoint, self._bits.take(), self._now(), EndpointLoad(self._busy))
            return state
        state.source = source
        if state.endpoint != endpoint:
            state.endpoint = endpoint
            self._members_changed = True
            for callback in tuple(self._changed):
                try:
                    callback(state)
                except Exception:
                    log.exception("a subscriber failed on the change of %s", endpoint)
        return None

    def subscribe_changes(self, callback: Changed) -> Callable[[], None]:
        """Hear of endpoints that stay and get other labels. Returns the function that ends it."""
        self._changed.append(callback)

        def unsubscribe() -> None:
            if callback in self._changed:
                self._changed.remove(callback)

        return unsubscribe

    def subscribe(self, callback: Subscriber) -> Callable[[], None]:
        """Hear of endpoints that come and go, at once of those already here. Returns the function that ends it.

        A removed endpoint's bit is given to another one only after every subscriber has returned and the removed endpoint's open
        requests are closed.
        """
        self._subscribers.append(callback)
        if self._states:
            self._call(callback, tuple(self._states.values()), ())

        def unsubscribe() -> None:
            if callback in self._subscribers:
                self._subscribers.remove(callback)

        return unsubscribe

    def _notify(self, added: Sequence[EndpointState], removed: Sequence[EndpointState]) -> None:
        for callback in tuple(self._subscribers):
            self._call(callback, added, removed)

    def _call(self, callback: Subscriber, added: Sequence[EndpointState], removed: Sequence[EndpointState]) -> None:
        try:
            callback(added, removed)
        except Exception:
            # One subscriber's fault must not leave the list half changed or the others uninformed.
            log.exception("a subscriber failed on %d added and %d removed endpoints", len(added), len(removed))

    def report(self, endpoint: Endpoint, metrics: EndpointMetrics) -> bool:
        """What a scrape found. False, and nothing done, if the endpoint is no longer here."""
        state = self._state_of(endpoint)
        if state is None:
            return False
        state.metrics = metrics
        if state._position >= 0 and not self._members_changed:
            self._board.report(state._position, metrics)
        return True

    def apply(self, endpoint: Endpoint, extracted: Extracted) -> bool:
        """What an extractor found. False, and nothing done, if the endpoint is no longer here. Raises TypeError and ValueError for values
        that cannot be used."""
        state = self._state_of(endpoint)
        if state is None:
            return False
        metrics = merged(state.metrics, extracted, self._now())
        return metrics is state.metrics or self.report(state.endpoint, metrics)

    def report_load(self, host_port: str, report: LoadReport) -> bool:
        """What a response header of this endpoint told; what it does not tell stays. False, and nothing done, if the endpoint is no
        longer here, or if its page says that its headers tell of a part of it only (a fallback that answered for another one)."""
        state = self._states.get(host_port)
        if state is None or not state.metrics.reports_load:
            return False
        state.report = report
        return self.report(state.endpoint, report.applied_to(state.metrics))

    def mark_alive(self, endpoint: Endpoint, alive: bool) -> bool:
        """Whether the endpoint answers; those that do not are left out of snapshots. False if the endpoint is no longer here."""
        state = self._state_of(endpoint)
        if state is None:
            return False
        if state.alive != alive:
            state.alive = alive
            self._members_changed = True
        return True

    def _state_of(self, endpoint: Endpoint) -> EndpointState | None:
        state = self._states.get(endpoint.host_port)
        if state is None or state.endpoint is endpoint or _identity(state.endpoint) == _identity(endpoint):
            return state
        return None

    def snapshot(self) -> Snapshot:
        """The endpoints that are alive, in the order in which they became known; the same object as long as nothing changed that a
        scorer could look at (see `picker.snapshot.Board`)."""
        if self._members_changed:
            self._rebuild_members()
        return self._board.snapshot()

    def _rebuild_members(self) -> None:
        for state in self._members:
            state._position = -1
        self._members = members = [s for s in self._states.values() if s.alive]
        for position, state in enumerate(members):
            state._position = position
        first = Snapshot(
            self._board.version + 1,
            [s.endpoint for s in members],
            [s.metrics for s in members],
            [s.load for s in members],
            [s.bit for s in members],
        )
        self._board = Board(first, self._busy)
        self._members_changed = False

    def match_subset(self, snapshot: Snapshot, hints: Sequence[str]) -> Candidates:
        """The endpoints of `snapshot` that subset hints mean (see `picker.datalayer.subset`). The index outlives metrics reports."""
        if self._index.endpoints is not snapshot.endpoints:
            self._index = AddressIndex(snapshot.endpoints)
        return match_subset(snapshot, hints, self._index)

    def states(self) -> Collection[EndpointState]:
        """Every known endpoint, alive or not; a live view, not to be iterated across an await."""
        return self._states.values()

    def find(self, host_port: str) -> EndpointState | None:
        """The endpoint with this `host:port`, alive or not."""
        return self._states.get(host_port)

    def __len__(self) -> int:
        return len(self._states)


class _Bits:
    """Hands out the lowest free bit number.

    A removed endpoint's bit rests until its open requests are closed: whatever they still write under that bit (the prefix index
    learns when a response arrives) must not be taken for another endpoint's.
    """

    def __init__(self) -> None:
        self._next = 0
        self._free: list[int] = []
        self._resting: list[EndpointState] = []

    def take(self) -> int:
        if self._resting:
            still = [s for s in self._resting if s.load.requests > 0]
            for state in self._resting:
                if state.load.requests <= 0:
                    heapq.heappush(self._free, state.bit)
            self._resting = still
        if self._free:
            return heapq.heappop(self._free)
        self._next += 1
        return self._next - 1

    def give_back(self, state: EndpointState) -> None:
        self._resting.append(state)


def _identity(endpoint: Endpoint) -> tuple[str, str, str, int]:
    return endpoint.namespace, endpoint.name, endpoint.address, endpoint.port
