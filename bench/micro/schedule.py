"""schedule() with the default scorers, and the prefix hash behind it."""

from __future__ import annotations

import random
from collections.abc import Callable

from picker.config import default_source
from picker.endpoint import Endpoint, EndpointLoad, EndpointMetrics
from picker.loader import Pipeline, load
from picker.metrics import Metrics
from picker.prompt import Prompt
from picker.request import InferenceRequest, ParsedBody
from picker.snapshot import Snapshot

_BLOCK_BYTES = 256


def benches() -> list[tuple[str, Callable[[], object]]]:
    """Endpoints x prompt blocks; a third of the endpoints hold the first half of the prompt."""
    text = random.Random(1).randbytes(128 * _BLOCK_BYTES)
    return [
        *[
            (f"schedule: {endpoints} endpoints, {blocks} prompt blocks", _schedule(endpoints, blocks))
            for endpoints in (10, 100, 1000)
            for blocks in (8, 128)
        ],
        ("hash 128 prompt blocks (32 KB)", lambda: Prompt(text).block_hashes(64, "model", 2048)),
    ]


def _schedule(count: int, blocks: int) -> Callable[[], object]:
    rng = random.Random(count)
    pipeline = load(default_source(), Metrics())
    snapshot = _snapshot(count, rng)
    text = rng.randbytes(blocks * _BLOCK_BYTES)
    _teach(pipeline, snapshot, text[: len(text) // 2])
    schedule = pipeline.scheduler.schedule

    def run() -> object:
        return schedule(_request(text), snapshot.candidates())

    return run


def _snapshot(count: int, rng: random.Random) -> Snapshot:
    endpoints = [Endpoint(f"pod-{i}", f"10.0.{i // 250}.{i % 250 + 1}", 8000) for i in range(count)]
    metrics = [EndpointMetrics(rng.randrange(10), rng.randrange(50), rng.random(), 16, 20_000) for _ in endpoints]
    return Snapshot(1, endpoints, metrics, [EndpointLoad() for _ in endpoints], range(count))


def _teach(pipeline: Pipeline, snapshot: Snapshot, text: bytes) -> None:
    for position in range(0, len(snapshot), 3):
        for hook in pipeline.pre_request:
            hook.pre_request(_request(text), snapshot, position)


def _request(text: bytes) -> InferenceRequest:
    return InferenceRequest("id", "/v1/chat/completions", {}, ParsedBody(model="m", prompt=Prompt(text)), "m", "m")
