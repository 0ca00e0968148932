"""Plugins that count or report are told of the end of a request once, whenever and however its stream ends."""

from __future__ import annotations

from collections.abc import Mapping

import pytest

from picker.errors import Evicted
from picker.extproc.events import Reply, ResponseHeaders
from picker.extproc.events import StreamedBodyReply as Body
from picker.request import InferenceRequest
from picker.result import Response
from tests.picker.extproc.attribute_transcripts import COST
from tests.picker.extproc.test_settling import DECIDED_AT, LONG, OVER_AT
from tests.picker.extproc.transcript import BEST, PODS, SSE
from tests.picker.world import World, at, config

CONFIG = config(
    "openai-parser",
    scorers=("queue-scorer", "kv-cache-utilization-scorer", "token-load-scorer"),
    parameters=f"""\
- type: inflight-load-producer
- name: with-output
  type: inflight-load-producer
  parameters: {{addEstimatedOutputTokens: true}}
- type: agent-identity
- type: request-attribute-reporter
  parameters:
    attributes:
    - key: {{name: {COST}}}
      expression: usage.completion_tokens
""",
)


class Watcher:
    """Counts what a response plugin is told, and raises each time."""

    type = name = "watcher"

    def __init__(self) -> None:
        self.started = 0
        self.causes: list[str] = []

    def response_started(self, request: InferenceRequest, response: Response) -> None:
        self.started += 1
        raise RuntimeError("a plugin fails")

    def response_complete(self, request: InferenceRequest, response: Response) -> Mapping[str, Mapping[str, object]] | None:
        self.causes.append(response.cause)
        raise RuntimeError("a plugin fails")


def watched(world: World) -> Watcher:
    watcher, plugins = Watcher(), world.director.stages.response
    world.director.stages.response = type(plugins).among([watcher, *[plugin for plugin, _ in plugins.complete]], world.metrics)
    return watcher


@pytest.mark.parametrize("events", range(len(LONG) + 1))
@pytest.mark.parametrize("served", [None, BEST, at(0), at(77)])
def test_a_stream_that_breaks_off_after_any_message(events: int, served: str | None) -> None:
    world = World(*PODS, config=CONFIG)
    watcher = watched(world)
    conversation = world.conversation()
    said: list[Reply] = []
    for event in LONG[:events]:
        said += conversation.receive(ResponseHeaders(SSE, served=served) if isinstance(event, ResponseHeaders) else event)
    open_ = DECIDED_AT <= events < OVER_AT
    requests = world.page().find("llm_d_epp_inflight_requests")
    assert {s.labels["producer_name"]: s.value for s in requests} == ({"inflight-load-producer": 1, "with-output": 1} if open_ else {})
    for _ in range(3):
        conversation.end()
        world.assert_idle()
        assert not world.page().find("llm_d_epp_inflight_requests")
    assert watcher.causes == ([] if events < DECIDED_AT else ["disconnected" if open_ else "completed"])
    assert watcher.started == (events >= 8)
    told = [reply.metadata for reply in said if isinstance(reply, Body) and reply.metadata is not None]
    assert told == ([{"envoy.lb": {COST: 10}}] if events >= OVER_AT else [])
    assert world.page().value("fairlead_request_attribute_errors_total") == 0


@pytest.mark.parametrize("events", range(DECIDED_AT, OVER_AT))
def test_a_request_that_is_taken_away(events: int) -> None:
    world = World(*PODS, config=CONFIG)
    watcher = watched(world)
    said: list[Reply] = []
    conversation = world.conversation(said.extend)
    for event in LONG[:events]:
        conversation.receive(event)
    exchange = conversation._exchange
    assert exchange is not None
    exchange.evict(Evicted("make room"))
    exchange.evict(Evicted("make room"))
    world.assert_idle()
    conversation.end()
    assert watcher.causes == ["evicted"] and exchange.metadata is None
    assert not world.page().find("llm_d_epp_inflight_requests")
