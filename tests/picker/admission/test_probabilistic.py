"""How likely a sheddable request is refused (contract section 4.5), by hand-computed tables."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from picker.admission.probabilistic import ProbabilisticAdmitter
from picker.endpoint import NEVER_SCRAPED, EndpointMetrics
from picker.errors import Internal, Refusal, Rejected
from picker.metrics import Metrics
from picker.plugin import Admitter
from tests.picker.scheduling.pool import FakeHandle, build, only, pool, request


def m(waiting: int = 0, kv_usage: float = 0.0) -> EndpointMetrics:
    return EndpointMetrics(waiting=waiting, kv_usage=kv_usage, updated_s=0.0)


def admitter(draw: float, parameters: dict[str, Any] | None = None) -> ProbabilisticAdmitter:
    decoded = msgspec.convert(parameters or {}, ProbabilisticAdmitter.Parameters)
    return ProbabilisticAdmitter("p", decoded, FakeHandle(), draw=lambda: draw)


def admits(plugin: ProbabilisticAdmitter, metrics: list[EndpointMetrics], priority: int = -1) -> bool:
    try:
        plugin.admit(request(b"x", priority=priority), pool(metrics).candidates(), 0.0)
    except Refusal:
        return False
    return True


@pytest.mark.parametrize(
    ("parameters", "metrics", "chance"),
    [
        ({}, [m()], 0.0),
        ({}, [m(waiting=1)], 0.096),  # 0.2^5 x 300
        ({}, [m(kv_usage=0.16)], 0.096),
        ({}, [m(waiting=1, kv_usage=0.08)], 0.096),  # the larger one counts
        ({}, [m(waiting=1), m(waiting=1)], 0.096),
        ({}, [m(waiting=2), m()], 0.096),  # mean of 0.4 and 0
        ({}, [m(waiting=2)], 1.0),  # 0.4^5 x 300 = 3.07
        ({}, [m(waiting=5)], 1.0),
        ({}, [m(waiting=10**9)], 1.0),
        ({"power": 400.0}, [m(waiting=10**9)], 1.0),  # more than a float can hold
        ({"k": 1.0, "power": 1.0}, [m(waiting=1), m(waiting=3)], 0.4),
        ({"queueDepthThreshold": 10, "k": 1.0, "power": 2.0}, [m(waiting=5)], 0.25),
        ({"kvCacheUtilThreshold": 0.5, "k": 1.0, "power": 1.0}, [m(kv_usage=0.25)], 0.5),
        ({"k": 0.5, "power": 1.0}, [NEVER_SCRAPED], 0.5),
        ({"k": 1.0, "power": 1.0}, [NEVER_SCRAPED, m()], 0.5),
    ],
)
def test_the_chance_of_a_refusal(parameters: dict[str, Any], metrics: list[EndpointMetrics], chance: float) -> None:
    assert admits(admitter(min(chance + 1e-9, 1.0), parameters), metrics)
    assert admits(admitter(max(chance - 1e-9, 0.0), parameters), metrics) == (chance == 0.0)


def test_only_sheddable_requests_are_refused() -> None:
    full = [m(waiting=50)]
    assert not admits(admitter(0.0), full, -1)
    assert admits(admitter(0.0), full, 0) and admits(admitter(0.0), full, 1)


def test_only_candidates_count() -> None:
    snapshot = pool([m(waiting=50), m()])
    plugin = admitter(0.0)
    plugin.admit(request(b"x", priority=-1), only(snapshot, 1), 0.0)
    with pytest.raises(Rejected):
        plugin.admit(request(b"x", priority=-1), only(snapshot, 0), 0.0)


def test_a_refusal_is_a_429_where_the_reference_says_500() -> None:
    with pytest.raises(Rejected, match="request cannot be admitted: the pool is 1000% full") as refusal:
        admitter(0.0).admit(request(b"x", priority=-1), pool([m(waiting=50)]).candidates(), 0.0)
    assert refusal.value.drop_reason == "rejected-saturated"
    as_reference = admitter(0.0)
    as_reference.connect(Metrics(), as_reference=True)
    with pytest.raises(Internal, match="request cannot be admitted"):
        as_reference.admit(request(b"x", priority=-1), pool([m(waiting=50)]).candidates(), 0.0)


def test_it_is_an_admitter_that_the_registry_can_build() -> None:
    assert isinstance(build(ProbabilisticAdmitter), Admitter)
    with pytest.raises(msgspec.ValidationError):
        build(ProbabilisticAdmitter, {"power": 0})
