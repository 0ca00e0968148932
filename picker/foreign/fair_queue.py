"""Stands around the FairQueue of a foreign fairness policy: whatever that does, somebody who waits has a turn.

The flows are kept here, too. When the plugin's queue fails or returns something else, the flow whose turn is longest ago takes its place;
and since a queue that has missed something is of no more use, it is made anew before it is asked again.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from typing import TypeVar

from picker.foreign.breaker import Breaker
from picker.foreign.verdicts import Invalid
from picker.plugin import FairQueue, QueuedFlow

T = TypeVar("T")


class GuardedFairQueue:
    """A FairQueue. `make` makes one of the plugin's; `clock` is monotonic seconds, as is `budget_s`."""

    def __init__(self, make: Callable[[], FairQueue], breaker: Breaker, clock: Callable[[], float], budget_s: float) -> None:
        self._make = make
        self._breaker = breaker
        self._clock = clock
        self._budget_s = budget_s
        self._flows: OrderedDict[int, QueuedFlow] = OrderedDict()
        """Those that have requests, by their next turn."""
        self._theirs: FairQueue | None = None
        """None: has to be made, and told of the flows."""

    def add(self, flow: QueuedFlow) -> None:
        """See `picker.plugin.FairQueue`, as with all here."""
        self._flows[id(flow)] = flow
        self._tell("add", flow)

    def moved(self, flow: QueuedFlow) -> None:
        self._tell("moved", flow)

    def remove(self, flow: QueuedFlow) -> None:
        self._flows.pop(id(flow), None)
        self._tell("remove", flow)

    def served(self, flow: QueuedFlow) -> None:
        if id(flow) in self._flows:
            self._flows.move_to_end(id(flow))
        self._tell("served", flow)

    def next(self, now_s: float) -> QueuedFlow | None:
        if not self._flows:
            return None
        first = next(iter(self._flows.values()))
        breaker = self._breaker
        if breaker.open and not breaker.may_try():
            return first

        return self._guarded("next", lambda: self._asked(now_s)) or first

    def _asked(self, now_s: float) -> QueuedFlow:
        flow = self._up_to_date().next(now_s)
        if flow is None:
            raise Invalid("None, although flows wait")
        if self._flows.get(id(flow)) is not flow:
            raise Invalid(f"{flow!r:.80}; expected one of the flows that wait")
        return flow

    def _up_to_date(self) -> FairQueue:
        if self._theirs is None:
            made = self._make()
            for flow in self._flows.values():
                made.add(flow)
            self._theirs = made
        return self._theirs

    def _tell(self, method: str, flow: QueuedFlow) -> None:
        if self._breaker.open:
            self._theirs = None
        if self._theirs is not None:
            self._guarded(method, lambda: getattr(self._theirs, method)(flow))
        elif not self._breaker.open and method == "add":
            self._guarded("queue", self._up_to_date)

    def _guarded(self, method: str, call: Callable[[], T]) -> T | None:
        """None when it failed."""
        breaker, started = self._breaker, self._clock()
        try:
            answer = call()
        except Invalid as invalid:
            self._theirs = None
            breaker.bad("invalid", f"{method}() of its queue returned {invalid}")
            return None
        except (Exception, SystemExit) as error:
            self._theirs = None
            breaker.bad("raised", f"{method}() of its queue raised {type(error).__name__}: {error!s:.200}", error)
            return None
        took_s = self._clock() - started
        if took_s > self._budget_s:
            breaker.bad("slow", f"{method}() of its queue took {took_s * 1e3:.1f} ms, more than {self._budget_s * 1e3:g}")
        elif method == "next" and (breaker.open or breaker.strikes):  # one good call for each turn
            breaker.good()
        return answer
