"""Who is refused because of predictions (contract section 4.5)."""

from __future__ import annotations

from typing import Any

import pytest

from picker.admission.latency_slo import LatencySloAdmitter
from picker.endpoint import NEVER_SCRAPED, EndpointMetrics
from picker.errors import Internal, Refusal, Rejected
from picker.plugin import Admitter
from tests.picker.scheduling.pool import build, load, only, pool, request
from tests.picker.scheduling.predictions import NONE, predict

BUSY = EndpointMetrics(running=3, kv_usage=0.5, updated_s=0.0)
IDLE = EndpointMetrics(running=0, kv_usage=0.5, updated_s=0.0)
COLD = EndpointMetrics(running=3, kv_usage=0.019, updated_s=0.0)
WARM = EndpointMetrics(running=3, kv_usage=0.02, updated_s=0.0)
TTFT = {"x-llm-d-slo-ttft-ms": "100"}
TPOT = {"x-slo-tpot-ms": "10"}
BAD = (-1.0, -1.0)
MESSAGE = "request cannot be admitted: no valid endpoint available to serve the request"


def admits(
    headrooms: list[Any] | None,
    metrics: list[EndpointMetrics] | None = None,
    *,
    headers: dict[str, str] = TTFT,
    priority: int = -1,
    unseen: int = 0,
) -> bool:
    metrics = metrics or [BUSY] * len(headrooms or [BAD])
    snapshot = pool(metrics, loads=[load(unseen, unseen=unseen) for _ in metrics])
    asked = request(priority=priority)
    asked.headers = headers
    if headrooms is not None:
        predict(asked, snapshot, headrooms)
    try:
        build(LatencySloAdmitter).admit(asked, snapshot.candidates(), 0.0)
    except Refusal as refusal:
        assert isinstance(refusal, Rejected)
        assert (refusal.message, refusal.drop_reason) == (MESSAGE, "rejected-saturated")
        return False
    return True


@pytest.mark.parametrize(
    ("headers", "headrooms", "admitted"),
    [
        (TTFT, [BAD], False),
        (TTFT, [BAD, NONE], False),
        (TTFT, [BAD, (0, 0)], True),
        ({**TTFT, **TPOT}, [(-1, 1), (1, -1)], False),
        # Of what the client does not ask for the headroom is 0 minus the prediction.
        (TTFT, [(1, -5)], True),
        (TPOT, [(1, -5)], False),
        (TPOT, [(-1, 0)], True),
        (TTFT, [NONE, NONE], True),
        (TTFT, None, True),
        ({}, [BAD], True),
        ({"x-llm-d-slo-ttft-ms": "soon"}, [BAD], True),
        ({"x-llm-d-slo-ttft-ms": "0"}, [BAD], True),
        ({"x-llm-d-slo-ttft-ms": "inf"}, [BAD], True),
        ({"x-slo-ttft-ms": "5"}, [BAD], False),
    ],
)
def test_by_what_is_predicted(headers: dict[str, str], headrooms: list[Any] | None, admitted: bool) -> None:
    assert admits(headrooms, headers=headers) == admitted


def test_only_sheddable_requests_are_refused() -> None:
    assert admits([BAD], priority=0)
    assert not admits([BAD], priority=-2)


@pytest.mark.parametrize(
    ("metrics", "admitted"),
    [([BUSY, BUSY], False), ([BUSY, IDLE], True), ([BUSY, COLD], True), ([BUSY, WARM], False), ([BUSY, NEVER_SCRAPED], False)],
)
def test_not_while_one_is_idle_or_cold(metrics: list[EndpointMetrics], admitted: bool) -> None:
    assert admits([BAD] * 2, metrics) == admitted


def test_one_that_has_just_been_sent_a_request_is_not_idle() -> None:
    assert not admits([BAD], [IDLE], unseen=1)


def test_only_candidates_count() -> None:
    snapshot = pool([BUSY, IDLE, BUSY])
    asked = predict(request(priority=-1), snapshot, [BAD, BAD, (5, 5)])
    asked.headers = TTFT
    for kept in ((0, 1), (0, 2)):
        build(LatencySloAdmitter).admit(asked, only(snapshot, *kept), 0.0)
    with pytest.raises(Rejected):
        build(LatencySloAdmitter).admit(asked, only(snapshot, 0), 0.0)


def test_the_refusal_can_be_the_references() -> None:
    plugin = build(LatencySloAdmitter)
    assert isinstance(plugin, Admitter)
    plugin.refuse = Internal
    snapshot = pool([BUSY])
    asked = predict(request(priority=-1), snapshot, [BAD])
    asked.headers = TTFT
    with pytest.raises(Internal, match=MESSAGE):
        plugin.admit(asked, snapshot.candidates(), 0.0)
