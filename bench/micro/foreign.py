"""What the guard around somebody else's plugin costs: the same scores by our own scorer, and by foreign ones."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

from picker.endpoint import Endpoint, EndpointLoad, EndpointMetrics
from picker.foreign.guard import Guard
from picker.foreign.make import ForeignType
from picker.metrics import Metrics
from picker.prompt import Prompt
from picker.request import InferenceRequest, ParsedBody
from picker.scheduling.scorers.load import QueueScorer
from picker.snapshot import Candidates, Snapshot


class _Lists:
    def score(self, request: InferenceRequest, candidates: Candidates) -> list[float]:
        waiting = candidates.column(candidates.snapshot.waiting)
        return [1.0 / (1 + q) for q in waiting]


class _Mappings:
    def score(self, request: InferenceRequest, candidates: Candidates) -> dict[Endpoint, float]:
        waiting = candidates.column(candidates.snapshot.waiting)
        return {e: 1.0 / (1 + q) for e, q in zip(candidates.endpoints, waiting, strict=True)}


class _Filter:
    def filter(self, request: InferenceRequest, candidates: Candidates) -> Candidates:
        return candidates.at([i for i, q in enumerate(candidates.column(candidates.snapshot.waiting)) if q < 6])


class _NoHandle:
    def plugin(self, name: str, fallback_type: str) -> Any:
        raise LookupError(name)


def benches() -> list[tuple[str, Callable[[], object]]]:
    """Endpoints x what is returned; "bare": the same class without its guard."""
    made: list[tuple[str, Callable[[], object]]] = []
    for count in (10, 1000):
        candidates, request = _pool(count).candidates(), _request()
        ours = QueueScorer(QueueScorer.type, QueueScorer.Parameters(), _NoHandle())
        made.append((f"foreign: {count} endpoints, our queue-scorer", partial(ours.score, request, candidates)))
        for cls, what in ((_Lists, "a list"), (_Mappings, "a mapping")):
            made.append((f"foreign: {count} endpoints, {what}, bare", partial(cls().score, request, candidates)))
            made.append((f"foreign: {count} endpoints, {what}, guarded", partial(_guarded(cls).score, request, candidates)))
        made.append((f"foreign: {count} endpoints, a filter, bare", partial(_Filter().filter, request, candidates)))
        made.append((f"foreign: {count} endpoints, a filter, guarded", partial(_guarded(_Filter).filter, request, candidates)))
    return made


def _guarded(cls: type[Any]) -> Any:
    guards: list[Guard] = []
    foreign = ForeignType(cls, "foreign", "bench", Metrics(), guards.append)
    return foreign("foreign", foreign.Parameters(), _NoHandle())


def _pool(count: int) -> Snapshot:
    endpoints = [Endpoint(f"e{i}", f"10.0.{i // 256}.{i % 256}", 8000) for i in range(count)]
    metrics = [EndpointMetrics(waiting=i % 7, updated_s=0.0) for i in range(count)]
    return Snapshot(1, endpoints, metrics, [EndpointLoad() for _ in range(count)], range(count))


def _request() -> InferenceRequest:
    body = ParsedBody(model="m", prompt=Prompt(b"hello"))
    return InferenceRequest("id", "/v1/completions", {}, body, "m", "m")
