"""The cases that every scorer meets, by hand: one endpoint, equals, a server never scraped, metrics of long ago."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import pytest

from picker.catalogue import SCORERS
from picker.endpoint import NEVER_SCRAPED, EndpointLoad, EndpointMetrics
from picker.prompt import Medium, Prompt
from picker.request import InferenceRequest, ParsedBody
from picker.scheduling.media_cache import MediaCacheProducer
from picker.scheduling.producers import ApproxPrefixCacheProducer
from picker.scheduling.sessions import TOKEN_HEADER
from picker.snapshot import Snapshot
from tests.picker.scheduling.pool import FakeHandle, build, load, only, pool

RANGE = "llm-d.ai/context-length-range"


def reported(updated_s: float | None) -> EndpointMetrics:
    """4 waiting, 6 running, half of the cache, adapter m active."""
    return EndpointMetrics(
        waiting=4, running=6, kv_usage=0.5, active_adapters=frozenset({"m"}), max_adapters=2, attributes={"heat": 30.0}, updated_s=updated_s
    )


LABELS = {"zone": "a", RANGE: "0-1000"}
TOKEN = "ZGVmYXVsdC9lMQ=="  # default/e1


def asked() -> InferenceRequest:
    """Of 100 tokens and one picture that nobody has seen; its session is on e1."""
    body = ParsedBody(model="m", prompt=Prompt(b"x" * 400, 0, (Medium("image", 1),)))
    return InferenceRequest("id", "/v1/chat/completions", {"x-zone": "a", TOKEN_HEADER: TOKEN}, body, "m", "m")


class Case(NamedTuple):
    """What is expected of one busy endpoint; of two that are equal; of one that was never scraped beside a busy one."""

    parameters: dict[str, Any]
    one: list[float]
    equal: list[float]
    never: list[float]


# In range 0-1000: 0.3 + 0.7 x (0.7 / 1.1 + 0.3 x 0.9)
IN_RANGE = 0.3 + 0.7 * (0.7 / 1.1 + 0.27)
CASES: dict[str, Case] = {
    "queue-scorer": Case({}, [1.0], [1.0, 1.0], [1.0, 0.0]),
    "running-requests-size-scorer": Case({}, [1.0], [1.0, 1.0], [1.0, 0.0]),
    "kv-cache-utilization-scorer": Case({}, [0.5], [0.5, 0.5], [1.0, 0.5]),
    "lora-affinity-scorer": Case({}, [1.0], [1.0, 1.0], [0.0, 1.0]),
    "prefix-cache-scorer": Case({}, [0.0], [0.0, 0.0], [0.0, 0.0]),
    # 2 requests with 50 tokens are in flight on each busy endpoint, none on one that was never scraped.
    "active-request-scorer": Case({}, [0.0], [0.0, 0.0], [1.0, 0.0]),
    "token-load-scorer": Case({"queueThresholdTokens": 200}, [0.25], [0.25, 0.25], [0.5, 0.25]),
    "load-aware-scorer": Case({"threshold": 8}, [0.25], [0.25, 0.25], [0.5, 0.25]),
    # These do not look at metrics; the second of two endpoints has no session.
    "context-length-aware": Case({}, [IN_RANGE], [IN_RANGE, IN_RANGE], [IN_RANGE, IN_RANGE]),
    "no-hit-lru-scorer": Case({}, [1.0], [1.0, 0.0], [1.0, 0.0]),
    "header-label-affinity-scorer": Case({"headerName": "x-zone", "labelKey": "zone"}, [1.0], [1.0, 1.0], [1.0, 1.0]),
    "session-affinity-scorer": Case({}, [1.0], [1.0, 0.0], [1.0, 0.0]),
    "endpoint-attribute-scorer": Case(
        {"attributeKey": "heat", "algorithm": {"type": "linear_lower_is_better"}}, [1.0], [1.0, 1.0], [0.0, 1.0]
    ),
    # Without predictions: free cache, (max - q) / max and prefix, each a third; then in hundredths, plus one.
    "latency-scorer": Case({}, [0.17], [0.17, 0.17], [0.67, 0.17]),
    "mm-embeddings-cache-scorer": Case({}, [0.0], [0.0, 0.0], [0.0, 0.0]),
}
BY_TYPE = {cls.type: cls for cls in SCORERS}


def score(type_: str, snapshot: Snapshot, *positions: int) -> list[float]:
    prefix, media = build(ApproxPrefixCacheProducer), build(MediaCacheProducer)
    handle = FakeHandle(approx_prefix_cache_producer=prefix, mm_embeddings_cache_producer=media)
    scorer = build(BY_TYPE[type_], CASES[type_].parameters, handle)
    candidates = only(snapshot, *positions) if positions else snapshot.candidates()
    request = asked()
    media.produce(request, candidates)
    first = list(scorer.score(request, candidates))
    assert list(scorer.score(request, candidates)) == first, "looking changes nothing"
    assert scorer.bounded and all(0.0 <= s <= 1.0 for s in first)
    return first


def busy() -> EndpointLoad:
    return load(requests=2, tokens=50)


def of(metrics: Sequence[EndpointMetrics], loads: Sequence[EndpointLoad]) -> Snapshot:
    return pool(metrics, loads=loads, labels=[LABELS] * len(metrics))


def test_no_scorer_is_left_out() -> None:
    assert CASES.keys() == BY_TYPE.keys()


@pytest.mark.parametrize("type_", CASES)
@pytest.mark.parametrize("updated_s", [0.0, -1e9], ids=["fresh", "of long ago"])
def test_one_endpoint(type_: str, updated_s: float) -> None:
    snapshot = of([reported(updated_s)], [busy()])
    assert score(type_, snapshot) == pytest.approx(CASES[type_].one)


@pytest.mark.parametrize("type_", CASES)
@pytest.mark.parametrize("updated_s", [0.0, -1e9], ids=["fresh", "of long ago"])
def test_equals(type_: str, updated_s: float) -> None:
    """What was reported long ago counts as it was: staleness is for saturation and admission to judge."""
    snapshot = of([reported(0.0), reported(updated_s)], [busy(), busy()])
    assert score(type_, snapshot) == pytest.approx(CASES[type_].equal)


@pytest.mark.parametrize("type_", CASES)
def test_never_scraped(type_: str) -> None:
    snapshot = of([NEVER_SCRAPED, reported(0.0)], [EndpointLoad(), busy()])
    assert score(type_, snapshot) == pytest.approx(CASES[type_].never)


@pytest.mark.parametrize("type_", CASES)
def test_what_was_taken_out_does_not_count(type_: str) -> None:
    worse = EndpointMetrics(waiting=99, running=99, kv_usage=1.0, attributes={"heat": 99.0}, updated_s=0.0)
    loads: list[Callable[[], EndpointLoad]] = [busy, busy, lambda: load(requests=50, tokens=5000)]
    snapshot = of([reported(0.0), reported(0.0), worse], [make() for make in loads])
    assert score(type_, snapshot, 0, 1) == pytest.approx(CASES[type_].equal)
