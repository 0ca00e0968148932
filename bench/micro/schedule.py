"""schedule() with the default scorers, and the prefix hash behind it."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import replace
from itertools import cycle

from picker.config import default_source
from picker.datalayer.datastore import Datastore
from picker.endpoint import Endpoint, EndpointMetrics
from picker.loader import Pipeline, load
from picker.metrics import Metrics
from picker.prompt import Prompt
from picker.request import InferenceRequest, ParsedBody
from picker.yaml_source import YamlSource

_BLOCK_BYTES = 256
_ADAPTERS = 5_000
_SLOTS = 40
_WITH_LORA = """
apiVersion: llm-d.ai/v1alpha1
kind: EndpointPickerConfig
plugins: [{type: queue-scorer}, {type: kv-cache-utilization-scorer}, {type: prefix-cache-scorer}, {type: lora-affinity-scorer}]
schedulingProfiles:
- name: default
  plugins:
  - {pluginRef: queue-scorer, weight: 2}
  - {pluginRef: kv-cache-utilization-scorer, weight: 2}
  - {pluginRef: prefix-cache-scorer, weight: 3}
  - {pluginRef: lora-affinity-scorer, weight: 1}
"""


def benches() -> list[tuple[str, Callable[[], object]]]:
    """Endpoints x prompt blocks; a third of the endpoints hold the first half of the prompt.

    "new numbers": between any two requests an endpoint has reported another load; "new adapters": and other adapters. Both include
    taking the report in and the new snapshot. An endpoint has 40 adapters active and 10 waiting, the requested one is on 1 % of them.
    """
    text = random.Random(1).randbytes(128 * _BLOCK_BYTES)
    lora = f"schedule: 1000 endpoints, 128 blocks, {_ADAPTERS} LoRA adapters"
    return [
        *[
            (f"schedule: {endpoints} endpoints, {blocks} prompt blocks", _schedule(endpoints, blocks))
            for endpoints in (10, 100, 1000)
            for blocks in (8, 128)
        ],
        *[
            (f"schedule: {endpoints} endpoints, 128 blocks, new numbers", _schedule(endpoints, 128, numbers=True))
            for endpoints in (10, 100, 1000)
        ],
        (lora, _schedule(1000, 128, lora=True)),
        (f"{lora}, new numbers", _schedule(1000, 128, lora=True, numbers=True)),
        (f"{lora}, new adapters", _schedule(1000, 128, lora=True, numbers=True, adapters=True)),
        ("hash 128 prompt blocks (32 KB)", lambda: Prompt(text).block_hashes(64, "model", 2048)),
    ]


def _schedule(count: int, blocks: int, *, lora: bool = False, numbers: bool = False, adapters: bool = False) -> Callable[[], object]:
    rng = random.Random(count)
    pipeline = load(YamlSource(_WITH_LORA, "bench") if lora else default_source(), Metrics())
    datastore, endpoints = _pool(count, rng, lora=lora)
    text = rng.randbytes(blocks * _BLOCK_BYTES)
    _teach(pipeline, datastore, text[: len(text) // 2])
    schedule, snapshot = pipeline.stages.scheduler.schedule, datastore.snapshot

    if not numbers:
        return lambda: schedule(_request(text), snapshot().candidates())

    reports = cycle(_reports(datastore, endpoints, rng, adapters=adapters))

    def run() -> object:
        datastore.report(*next(reports))
        return schedule(_request(text), snapshot().candidates())

    return run


def _pool(count: int, rng: random.Random, *, lora: bool) -> tuple[Datastore, list[Endpoint]]:
    datastore = Datastore()
    endpoints = [Endpoint(f"pod-{i}", f"10.0.{i // 250}.{i % 250 + 1}", 8000) for i in range(count)]
    datastore.set_endpoints("bench", endpoints)
    for endpoint in endpoints:
        metrics = EndpointMetrics(rng.randrange(10), rng.randrange(50), rng.random(), 16, 20_000, updated_s=0.0)
        datastore.report(endpoint, _with_adapters(metrics, rng) if lora else metrics)
    return datastore, endpoints


def _with_adapters(metrics: EndpointMetrics, rng: random.Random) -> EndpointMetrics:
    chosen = [f"adapter-{n}" for n in rng.sample(range(_ADAPTERS), _SLOTS + 10)]
    active, waiting = frozenset(chosen[:_SLOTS]), frozenset(chosen[_SLOTS:])
    return replace(metrics, active_adapters=active, waiting_adapters=waiting, max_adapters=_SLOTS)


def _reports(
    datastore: Datastore, endpoints: list[Endpoint], rng: random.Random, *, adapters: bool
) -> list[tuple[Endpoint, EndpointMetrics]]:
    """Two rounds of them, so that each is another than the last one of its endpoint."""
    reports = []
    for n in range(2):
        for state in list(datastore.states()):
            changed = replace(state.metrics, waiting=n + rng.randrange(5) * 2, running=n + rng.randrange(20) * 2, kv_usage=rng.random())
            reports.append((state.endpoint, _with_adapters(changed, rng) if adapters else changed))
    return reports


def _teach(pipeline: Pipeline, datastore: Datastore, text: bytes) -> None:
    snapshot = datastore.snapshot()
    for position in range(0, len(snapshot), 3):
        for hook, _ in pipeline.stages.pre_request:
            hook.pre_request(_request(text), snapshot, position)


def _request(text: bytes) -> InferenceRequest:
    return InferenceRequest("id", "/v1/chat/completions", {}, ParsedBody(model="adapter-7", prompt=Prompt(text)), "adapter-7", "adapter-7")
