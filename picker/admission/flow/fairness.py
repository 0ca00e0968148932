"""Fairness policies: which flow of a band has its turn (contract section 4.8).

A policy makes a FairQueue for each band; that is told which flows have requests, and finds the next one without looking at all of them.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping
from heapq import heapify, heappop, heappush
from typing import Annotated, Any, Literal

import msgspec

from picker.plugin import FairQueue, Handle, NoParameters, Parameters, QueuedFlow
from picker.request import InferenceRequest
from picker.result import Response

_SWEEP = 64


class GlobalStrictFairnessPolicy:
    """No fairness: of all flows the one whose first request comes first by the ordering policy."""

    type = "global-strict-fairness-policy"
    Parameters = NoParameters

    def __init__(self, name: str, parameters: NoParameters, handle: Handle) -> None:
        self.name = name

    def queue(self) -> FairQueue:
        """For one band."""
        return _BestHead()


class _BestHead:
    def __init__(self) -> None:
        self._heap: list[tuple[Any, int, QueuedFlow]] = []
        self._active = 0

    def add(self, flow: QueuedFlow) -> None:
        self._active += 1
        self._push(flow)

    def moved(self, flow: QueuedFlow) -> None:
        self._push(flow)

    def remove(self, flow: QueuedFlow) -> None:
        self._active -= 1

    def _push(self, flow: QueuedFlow) -> None:
        head = flow.head()
        if head is None:
            return
        heappush(self._heap, (head.key, head.seq, flow))
        if len(self._heap) > 4 * self._active + _SWEEP:
            self._heap = [entry for entry in self._heap if _current(entry)]
            heapify(self._heap)

    def next(self, now_s: float) -> QueuedFlow | None:
        heap = self._heap
        while heap:
            if _current(heap[0]):
                return heap[0][2]
            heappop(heap)
        return None

    def served(self, flow: QueuedFlow) -> None:
        pass


def _current(entry: tuple[Any, int, QueuedFlow]) -> bool:
    head = entry[2].head()
    return head is not None and head.seq == entry[1]


class RoundRobinFairnessPolicy:
    """Each flow in turn, whatever the others have waiting."""

    type = "round-robin-fairness-policy"
    Parameters = NoParameters

    def __init__(self, name: str, parameters: NoParameters, handle: Handle) -> None:
        self.name = name

    def queue(self) -> FairQueue:
        """For one band."""
        return _Ring()


class _Ring:
    """Flows in the order of their next turn; one that has had its turn goes to the end."""

    def __init__(self) -> None:
        self._flows: OrderedDict[int, QueuedFlow] = OrderedDict()

    def add(self, flow: QueuedFlow) -> None:
        self._flows[id(flow)] = flow

    def moved(self, flow: QueuedFlow) -> None:
        pass

    def remove(self, flow: QueuedFlow) -> None:
        self._flows.pop(id(flow), None)

    def next(self, now_s: float) -> QueuedFlow | None:
        if not self._flows:
            return None
        return next(iter(self._flows.values()))

    def served(self, flow: QueuedFlow) -> None:
        if id(flow) in self._flows:
            self._flows.move_to_end(id(flow))


class ProgramAwareParameters(Parameters, frozen=True):
    """`las`: least attained service. Half-life 0: nothing is forgotten."""

    strategy: Literal["las"] = "las"
    las_weight_service: Annotated[float, msgspec.Meta(ge=0)] = 0.8
    las_weight_head_wait: Annotated[float, msgspec.Meta(ge=0)] = 0.2
    las_half_life_seconds: Annotated[float, msgspec.Meta(ge=0)] = 60.0
    eviction_ttl_seconds: Annotated[float, msgspec.Meta(gt=0)] = 3600.0
    eviction_sweep_seconds: Annotated[float, msgspec.Meta(gt=0)] = 300.0


class _Program:
    """What one fairness id has been given: tokens as of `at_s`, decaying."""

    __slots__ = ("at_s", "served", "tokens", "waited_s")

    def __init__(self) -> None:
        self.tokens = 0.0
        self.at_s = 0.0
        self.waited_s = 0.0
        self.served = 0


MAX_PROGRAMS = 10_000
INPUT_COST = 1.0
OUTPUT_COST = 2.0


class ProgramAwareFairness:
    """The flow that has been served least, and has waited longest: score = wS x (1 - norm(service)) + wW x norm(head wait), each min-max
    normalised over the flows that wait; the highest goes first. Service is 1 x input + 2 x output tokens and halves each half-life."""

    type = "program-aware-fairness"
    Parameters = ProgramAwareParameters

    def __init__(self, name: str, parameters: ProgramAwareParameters, handle: Handle) -> None:
        self.name = name
        self.parameters = parameters
        self.now_s = 0.0
        """Of the last decision: responses end between decisions, and a few milliseconds do not matter to a half-life."""
        self._programs: dict[str, _Program] = {}
        self._swept_s = 0.0

    def queue(self) -> FairQueue:
        """For one band; service is counted over all of them."""
        return _LeastAttained(self)

    def program(self, fairness_id: str) -> _Program | None:
        """None when there are too many."""
        program = self._programs.get(fairness_id)
        if program is None and len(self._programs) < MAX_PROGRAMS:
            program = self._programs[fairness_id] = _Program()
            program.at_s = self.now_s
        return program

    def service(self, fairness_id: str, now_s: float) -> float:
        """Tokens, decayed to now."""
        program = self._programs.get(fairness_id)
        return 0.0 if program is None else self._decayed(program, now_s)

    def _decayed(self, program: _Program, now_s: float) -> float:
        half_life_s = self.parameters.las_half_life_seconds
        if not half_life_s:
            return program.tokens
        return float(program.tokens * 0.5 ** (max(0.0, now_s - program.at_s) / half_life_s))

    def dispatched(self, fairness_id: str, waited_s: float, now_s: float) -> None:
        """A request of this program has had its turn."""
        self.now_s = now_s
        program = self.program(fairness_id)
        if program is not None:
            program.waited_s += waited_s
            program.served += 1
            program.tokens, program.at_s = self._decayed(program, now_s), now_s
        if now_s - self._swept_s >= self.parameters.eviction_sweep_seconds:
            self._swept_s = now_s
            ttl_s = self.parameters.eviction_ttl_seconds
            for key in [k for k, p in self._programs.items() if now_s - p.at_s > ttl_s]:
                del self._programs[key]

    def response_complete(self, request: InferenceRequest, response: Response) -> Mapping[str, Mapping[str, object]] | None:
        """Charges what was served."""
        usage = response.usage
        program = self.program(request.fairness_id) if usage is not None else None
        if usage is not None and program is not None:
            now_s = max(self.now_s, program.at_s)
            program.tokens = self._decayed(program, now_s)
            program.at_s = now_s
            program.tokens += INPUT_COST * (usage.prompt_tokens or 0) + OUTPUT_COST * (usage.completion_tokens or 0)
        return None

    def programs(self) -> Mapping[str, _Program]:
        """For the metrics."""
        return self._programs

    def jain(self) -> float:
        """Jain's index of attained service: 1 is equal, 1/n is all for one."""
        values = [self._decayed(p, self.now_s) for p in self._programs.values()]
        square = sum(values) ** 2
        squares = sum(v * v for v in values)
        return square / (len(values) * squares) if squares else 1.0


class _LeastAttained:
    def __init__(self, policy: ProgramAwareFairness) -> None:
        self._policy = policy
        self._flows: dict[int, QueuedFlow] = {}

    def add(self, flow: QueuedFlow) -> None:
        self._flows[id(flow)] = flow

    def moved(self, flow: QueuedFlow) -> None:
        pass

    def remove(self, flow: QueuedFlow) -> None:
        self._flows.pop(id(flow), None)

    def next(self, now_s: float) -> QueuedFlow | None:
        """Looks at every flow that waits: what is normalised over all of them changes with each."""
        flows = list(self._flows.values())
        if len(flows) < 2:
            return flows[0] if flows else None
        policy = self._policy
        service = _normalised([policy.service(flow.fairness_id, now_s) for flow in flows])
        waits = _normalised([now_s - head.enqueued_s if (head := flow.head()) is not None else 0.0 for flow in flows])
        by_service, by_wait = policy.parameters.las_weight_service, policy.parameters.las_weight_head_wait
        scores = [by_service * (1 - s) + by_wait * w for s, w in zip(service, waits, strict=True)]
        return flows[scores.index(max(scores))]

    def served(self, flow: QueuedFlow) -> None:
        pass


def _normalised(values: list[float]) -> list[float]:
    """Min-max; 0 for all when they are equal."""
    low, high = min(values), max(values)
    return [0.0] * len(values) if high == low else [(v - low) / (high - low) for v in values]
