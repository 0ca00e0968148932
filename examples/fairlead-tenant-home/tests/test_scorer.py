"""Tenants and their homes."""

from __future__ import annotations

from collections import Counter

from fairlead.testing import Server, build, candidates, request
from tenant_home.scorer import TenantHomeScorer

POOL = candidates(*[Server()] * 4)


def home(tenant: str, without: int | None = None) -> str:
    """The name of the endpoint that a tenant prefers."""
    pool = POOL.at([i for i in range(len(POOL)) if i != without])
    scores = build(TenantHomeScorer).score(request(headers={"x-tenant": tenant}), pool)
    assert all(0.0 <= score <= 1.0 for score in scores)
    return pool.endpoints[scores.index(max(scores))].name


def test_tenants_are_spread_evenly() -> None:
    homes = Counter(home(f"tenant-{i}") for i in range(400))
    assert sorted(homes) == ["e1", "e2", "e3", "e4"]
    assert min(homes.values()) > 70


def test_only_tenants_of_a_server_that_is_gone_move() -> None:
    for i in range(100):
        before, after = home(f"tenant-{i}"), home(f"tenant-{i}", without=0)
        assert after == before or before == "e1"


def test_another_header() -> None:
    scorer = build(TenantHomeScorer, {"header": "x-team"})
    assert scorer.score(request(headers={"x-tenant": "a"}), POOL) == [0.0] * 4
    assert any(scorer.score(request(headers={"x-team": "a"}), POOL))
