"""The filter by load."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from picker.endpoint import NEVER_SCRAPED, EndpointMetrics
from picker.scheduling.load_filters import UtilizationFilter
from tests.picker.scheduling.pool import build, load, pool, request

POOL = pool(
    [
        EndpointMetrics(waiting=2, running=5, kv_usage=0.9, updated_s=0.0),
        EndpointMetrics(running=9, kv_usage=0.5, updated_s=0.0),
        NEVER_SCRAPED,
    ],
    loads=[load(), load(3), load(4, unseen=4)],
)


@pytest.mark.parametrize(
    ("conditions", "left"),
    [
        ({"active-requests": 3}, [0, 1]),
        ({"running-requests": 5}, [0, 2]),
        ({"waiting-queue": 3}, [0, 1]),
        ({"kv-cache-utilization": 0.5}, [1, 2]),
        ({"kv-cache-utilization": 0.5, "waiting-queue": 0}, [1]),
        ({"running-requests": 5, "waiting-queue": 1}, []),
    ],
)
def test_limits(conditions: dict[str, float], left: list[int]) -> None:
    parameters: dict[str, Any] = {"conditions": [{"metric": m, "maxValue": v} for m, v in conditions.items()]}
    assert list(build(UtilizationFilter, parameters).filter(request(), POOL.candidates()).positions) == left
    parameters["fallbackOnEmpty"] = True
    assert list(build(UtilizationFilter, parameters).filter(request(), POOL.candidates()).positions) == (left or [0, 1, 2])


def test_without_conditions_it_is_refused() -> None:
    with pytest.raises(msgspec.ValidationError):
        build(UtilizationFilter, {"conditions": []})
