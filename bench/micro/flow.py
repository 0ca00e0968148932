"""Flow control: what one request costs on its way through the queues while many others wait."""

from __future__ import annotations

from collections.abc import Callable
from itertools import count

from picker.admission.flow.controller import FlowController
from picker.admission.flow.observing import Books
from picker.admission.flow.room import Room
from picker.config import DEFAULT_TEXT
from picker.datalayer.datastore import Datastore
from picker.endpoint import Endpoint
from picker.errors import Refusal
from picker.loader import load
from picker.metrics import Metrics
from picker.request import InferenceRequest, ParsedBody
from picker.yaml_source import YamlSource

_FLOWS = 5_000
_WITH_QUEUES = """featureGates: [flowControl]
flowControl:
  saturationDetector: {{pluginRef: concurrency-detector}}
  defaultPriorityBand: {{maxRequests: 0, fairnessPolicyRef: {policy}}}
"""


def benches() -> list[tuple[str, Callable[[], object]]]:
    """One request is queued and another let in, of 5,000 that wait in as many flows; the server takes one at a time. And one alone."""
    return [
        ("flow control: straight through, nothing waits", _alone()),
        *_turns(),
    ]


def _turns() -> list[tuple[str, Callable[[], object]]]:
    return [
        (f"flow control: enqueue and dispatch, {_FLOWS} flows, {name}", _turn(policy))
        for name, policy in (("global strict", "global-strict-fairness-policy"), ("round robin", "round-robin-fairness-policy"))
    ]


class _Timer:
    def cancel(self) -> None:
        pass


def _bench(policy: str) -> tuple[FlowController, Datastore]:
    text = DEFAULT_TEXT.replace("plugins:\n", "plugins:\n- {type: concurrency-detector, parameters: {maxConcurrency: 1}}\n", 1)
    metrics = Metrics()
    settings = load(YamlSource(text + _WITH_QUEUES.format(policy=policy), "bench"), metrics).flow
    assert settings is not None
    datastore = Datastore(now=lambda: 0.0)
    datastore.set_endpoints("bench", [Endpoint("pod", "10.0.0.1", 8000)])
    room = Room(settings.detector, datastore.snapshot)
    return FlowController(settings, room, Books(metrics, "bench"), lambda: 0.0, lambda delay_s, callback: _Timer()), datastore


def _alone() -> Callable[[], object]:
    controller, _ = _bench("round-robin-fairness-policy")
    request = InferenceRequest("id", "/v1/completions", {}, ParsedBody(), "m", "m")

    def decided(refusal: Refusal | None) -> None:
        assert refusal is None
        controller.abandoned(request)

    return lambda: controller.enqueue(request, decided)


def _turn(policy: str) -> Callable[[], object]:
    controller, datastore = _bench(policy)
    (state,) = datastore.states()
    numbers = count()
    marks: list[int] = []
    request = InferenceRequest("id", "/v1/completions", {}, ParsedBody(), "m", "m")

    def decided(refusal: Refusal | None) -> None:
        assert refusal is None
        marks.append(state.load.open_request(0))
        controller.abandoned(request)  # there is no exchange that would tell of its end

    def send() -> None:
        nonlocal request
        request = InferenceRequest("id", "/v1/completions", {}, ParsedBody(), "m", "m", fairness_id=f"flow-{next(numbers) % _FLOWS}")
        controller.enqueue(request, decided)

    for _ in range(_FLOWS + 1):
        send()
    assert (len(marks), controller.requests) == (1, _FLOWS)

    def run() -> None:
        send()
        state.load.close_request(marks.pop())
        controller.cycle()

    return run
