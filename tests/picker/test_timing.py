"""Plugins of every stage show up in the metric of plugin times, under the names that dashboards look for."""

from __future__ import annotations

import pytest

from picker.exchange import ResponsePlugins
from picker.extproc.events import RequestBody, RequestHeaders, ResponseBody, ResponseHeaders
from picker.stages import Stages
from tests.picker.world import P, World

ASKING = [(":path", b"/v1/completions")]
BODY = b'{"model":"m","prompt":"x"}'


class Everywhere:
    """Has a part in each stage; raises where `broken` says so."""

    type, name = "everywhere", "mine"

    def __init__(self, *broken: str) -> None:
        self.broken = broken

    def _maybe(self, stage: str) -> None:
        if stage in self.broken:
            raise ZeroDivisionError(stage)

    def request_header(self, request) -> None:  # type: ignore[no-untyped-def]
        self._maybe("RequestHeader")

    def screen(self, request, candidates):  # type: ignore[no-untyped-def]
        self._maybe("Screener")
        return candidates

    def produce(self, request, candidates) -> None:  # type: ignore[no-untyped-def]
        self._maybe("DataProducer")

    def admit(self, request, candidates, now_s) -> None:  # type: ignore[no-untyped-def]
        self._maybe("Admission")

    def pre_request(self, request, snapshot, position) -> None:  # type: ignore[no-untyped-def]
        self._maybe("PreRequest")

    def response_header(self, request, response) -> None:  # type: ignore[no-untyped-def]
        self._maybe("ResponseReceived")

    def response_started(self, request, response) -> None:  # type: ignore[no-untyped-def]
        self._maybe("ResponseStreaming")

    def response_complete(self, request, response) -> None:  # type: ignore[no-untyped-def]
        self._maybe("ResponseComplete")


def times(*broken: str) -> dict[str, int]:
    """How often the plugin was timed at each extension point, in one request and its answer."""
    world, plugin = World(P(0)), Everywhere(*broken)
    old = world.director.stages
    world.director.stages = Stages(
        old.parsers.parsers,
        old.shedder,
        old.scheduler,
        world.metrics,
        request_header=[plugin],
        screeners=[plugin],
        producers=[plugin],
        admitters=[plugin],
        pre_request=[plugin],
        response=ResponsePlugins.among([plugin], world.metrics),
    )
    conversation = world.conversation()
    conversation.receive(RequestHeaders(ASKING))
    conversation.receive(RequestBody(BODY, True))
    conversation.receive(ResponseHeaders([(":status", b"200")]))
    conversation.receive(ResponseBody(b"{}", True))
    conversation.end()
    world.assert_idle()
    cells = world.metrics.plugin_duration.cells
    return {point: count for (point, type_, _), cell in cells.items() if type_ == "everywhere" and (count := sum(cell.counts))}


POINTS = (
    "RequestHeader",
    "Screener",
    "DataProducer",
    "Admission",
    "PreRequest",
    "ResponseReceived",
    "ResponseStreaming",
    "ResponseComplete",
)


def test_each_call_is_timed_once() -> None:
    assert times() == dict.fromkeys(POINTS, 1)


@pytest.mark.parametrize("broken", ["DataProducer", "ResponseReceived", "ResponseStreaming", "ResponseComplete"])
def test_a_call_that_fails_and_is_passed_over_is_timed_too(broken: str) -> None:
    assert times(broken) == dict.fromkeys(POINTS, 1)


@pytest.mark.parametrize("broken", ["RequestHeader", "Screener", "Admission"])
def test_a_call_that_ends_the_request_is_timed_too(broken: str) -> None:
    assert times(broken) == dict.fromkeys(POINTS[: POINTS.index(broken) + 1], 1)
