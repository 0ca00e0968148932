"""Every scorer by itself, at 10 and 1,000 endpoints."""

from __future__ import annotations

import base64
import random
from collections.abc import Callable, Sequence
from itertools import cycle

from bench.extproc.arms import usable
from picker.catalogue import SCORERS
from picker.datalayer.datastore import Datastore
from picker.endpoint import Endpoint, EndpointMetrics
from picker.loader import Options, load
from picker.metrics import Metrics
from picker.plugin import DataProducer
from picker.prompt import Medium, Prompt
from picker.request import InferenceRequest, ParsedBody
from picker.snapshot import Candidates
from picker.yaml_source import YamlSource

_HEAD = "apiVersion: llm-d.ai/v1alpha1\nkind: EndpointPickerConfig\nplugins:\n"
_PARAMETERS = {
    "header-label-affinity-scorer": "headerName: x-zone, labelKey: zone",
    "endpoint-attribute-scorer": "attributeKey: heat, algorithm: {type: linear_lower_is_better}",
}
_BLOCKS = 32
_RANGE = "llm-d.ai/context-length-range"


def benches() -> list[tuple[str, Callable[[], object]]]:
    """The request has 32 blocks, of which a third of the endpoints hold half, a session, a zone and two pictures. Each call takes in the
    report of one endpoint with other numbers, and the snapshot; "taking reports in" is that alone. "cold": nobody has the prompt.
    """
    found: list[tuple[str, Callable[[], object]]] = []
    for count in (10, 1000):
        found.append((f"scorers: {count} endpoints, taking reports in", _bench("queue-scorer", count, alone=True)))
        found += [(f"scorers: {count} endpoints, {cls.type}", _bench(cls.type, count)) for cls in usable(SCORERS)]
        found.append((f"scorers: {count} endpoints, no-hit-lru-scorer, cold", _bench("no-hit-lru-scorer", count, cold=True)))
    return found


def _bench(type_: str, count: int, *, alone: bool = False, cold: bool = False) -> Callable[[], object]:
    rng = random.Random(count)
    text = f"{_HEAD}- {{type: {type_}, parameters: {{{_PARAMETERS.get(type_, '')}}}}}\n"
    stages = load(YamlSource(text, "bench"), Metrics(), Options(experimental=True)).stages
    (weighted,) = stages.scheduler.profiles["default"].scorers
    score = weighted.plugin.score
    datastore = Datastore()
    endpoints = [
        Endpoint(f"pod-{i}", f"10.0.{i // 250}.{i % 250 + 1}", 8000, labels={"zone": f"z{i % 3}", _RANGE: f"0-{(i % 4 + 1) * 4096}"})
        for i in range(count)
    ]
    datastore.set_endpoints("bench", endpoints)
    reports = [(e, _metrics(rng)) for _ in range(2) for e in endpoints]
    for endpoint, metrics in reports:
        datastore.report(endpoint, metrics)
    producers = [producer for producer, _ in stages.producers]
    prompt = rng.randbytes(_BLOCKS * 256)
    known = prompt[: len(prompt) // 2]
    for position in range(0, count, 3):
        candidates = datastore.snapshot().candidates()
        _prepared(request := _request(known), producers, candidates)
        for hook, _ in stages.pre_request:
            hook.pre_request(request, candidates.snapshot, position)
    asked = rng.randbytes(len(prompt)) if cold else prompt
    turns = cycle(reports)

    def run() -> object:
        datastore.report(*next(turns))
        candidates = datastore.snapshot().candidates()
        if alone:
            return candidates
        request = _request(asked)
        _prepared(request, producers, candidates)
        return score(request, candidates)

    return run


def _prepared(request: InferenceRequest, producers: Sequence[DataProducer], candidates: Candidates) -> None:
    for producer in producers:
        producer.produce(request, candidates)


def _metrics(rng: random.Random) -> EndpointMetrics:
    return EndpointMetrics(rng.randrange(10), rng.randrange(50), rng.random(), 16, 20_000, updated_s=0.0, attributes={"heat": rng.random()})


_HEADERS = {"x-zone": "z1", "x-session-token": base64.b64encode(b"default/pod-7").decode()}
_MEDIA = (Medium("image", 1), Medium("image", 2))


def _request(text: bytes) -> InferenceRequest:
    body = ParsedBody(model="m", prompt=Prompt(text, 512, _MEDIA))
    return InferenceRequest("id", "/v1/chat/completions", _HEADERS, body, "m", "m")
