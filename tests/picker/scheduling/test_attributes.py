"""Filter and scorer by an attribute, against tables computed by hand and against themselves computed afresh."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, ClassVar

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from picker.datalayer.datastore import Datastore
from picker.endpoint import NEVER_SCRAPED, EndpointMetrics
from picker.endpoint_values import leave_endpoint_values, left_endpoint_values
from picker.errors import ParameterError
from picker.plugin import NoParameters
from picker.request import InferenceRequest
from picker.scheduling.attributes import EndpointAttributeFilter, EndpointAttributeScorer
from picker.snapshot import Candidates, Snapshot
from tests.picker.scheduling.pool import FakeHandle, build, endpoint, idle, only, pool, request
from tests.picker.test_loader import pipeline, refused

KEY = "queue_depth"
Values = Sequence[float | None]


def reported(values: Values) -> Snapshot:
    """A pool whose endpoints report these; None is never scraped."""
    return pool([NEVER_SCRAPED if v is None else EndpointMetrics(attributes={KEY: v}, updated_s=0.0) for v in values])


def scorer(better: str = "lower", handle: FakeHandle | None = None, producer: str = "", **normalization: Any) -> EndpointAttributeScorer:
    parameters = {
        "attributeKey": KEY,
        "producer": producer,
        "algorithm": {"type": f"linear_{better}_is_better", "normalization": normalization},
    }
    made: EndpointAttributeScorer = build(EndpointAttributeScorer, parameters, handle)
    return made


def kept_by(operator: str, value: float, handle: FakeHandle | None = None, **more: Any) -> EndpointAttributeFilter:
    parameters = {"attribute": KEY, "algorithm": {"type": "threshold", "threshold": {"operator": operator, "value": value}}, **more}
    made: EndpointAttributeFilter = build(EndpointAttributeFilter, parameters, handle)
    return made


@pytest.mark.parametrize(
    ("values", "higher", "lower"),
    [
        ([7], [1.0], [1.0]),
        ([3, 3, 3], [1.0, 1.0, 1.0], [1.0, 1.0, 1.0]),
        ([0, 5, 10], [0.0, 0.5, 1.0], [1.0, 0.5, 0.0]),
        ([4, None, 8, 4], [0.0, 0.0, 1.0, 0.0], [1.0, 0.0, 0.0, 1.0]),
        ([None, 2], [0.0, 1.0], [0.0, 1.0]),
        ([None, None], [0.0, 0.0], [0.0, 0.0]),
        ([None], [0.0], [0.0]),
        ([-1.0, 0.0, 3.0], [0.0, 0.25, 1.0], [1.0, 0.75, 0.0]),
        ([-1.5e308, 0.0, 1.5e308], [0.0, 0.5, 1.0], [1.0, 0.5, 0.0]),
    ],
)
def test_adaptive_range(values: Values, higher: list[float], lower: list[float]) -> None:
    candidates = reported(values).candidates()
    for normalization in ({}, {"adaptiveRange": {}}):
        assert list(scorer("higher", **normalization).score(request(), candidates)) == higher
        assert list(scorer("lower", **normalization).score(request(), candidates)) == lower


@pytest.mark.parametrize(
    ("values", "higher"),
    [
        ([0.5], [0.25]),
        ([0, 2, 1], [0.0, 1.0, 0.5]),
        ([-3, 9], [0.0, 1.0]),
        ([None, 1, 1], [0.0, 0.5, 0.5]),
    ],
)
def test_fixed_range(values: Values, higher: list[float]) -> None:
    candidates = reported(values).candidates()
    fixed = {"min": 0, "max": 2}
    assert list(scorer("higher", fixedRange=fixed).score(request(), candidates)) == higher
    lower = [0.0 if v is None else 1 - s for v, s in zip(values, higher, strict=True)]
    assert list(scorer("lower", fixedRange=fixed).score(request(), candidates)) == lower


def test_the_adaptive_range_is_that_of_the_candidates() -> None:
    snapshot = reported([0, 10, 20, 100])
    assert list(scorer().score(request(), only(snapshot, 1, 2))) == [1.0, 0.0]
    assert list(scorer(fixedRange={"min": 0, "max": 100}).score(request(), only(snapshot, 1, 3))) == [0.9, 0.0]


@pytest.mark.parametrize(
    ("operator", "kept"),
    [
        ("LessThan", [0]),
        ("LessThanOrEqual", [0, 1]),
        ("GreaterThan", [2]),
        ("GreaterThanOrEqual", [1, 2]),
        ("Equal", [1]),
        ("NotEqual", [0, 2]),
    ],
)
def test_thresholds(operator: str, kept: list[int]) -> None:
    snapshot = reported([1, 2, 3, None])
    assert list(kept_by(operator, 2).filter(request(), snapshot.candidates()).positions) == [*kept, 3]
    assert list(kept_by(operator, 2, onMissing="Fail").filter(request(), snapshot.candidates()).positions) == kept
    assert list(kept_by(operator, 2, onMissing="Fail").filter(request(), only(snapshot, 1, 3)).positions) == [p for p in kept if p == 1]


@pytest.mark.parametrize(("fallback", "left"), [(False, 0), (True, 3)])
def test_nobody_left(fallback: bool, left: int) -> None:
    snapshot = reported([1, 2, None])
    made = kept_by("GreaterThan", 5, onMissing="Fail", fallbackOnEmpty=fallback)
    for _ in range(2):  # the second time from what is kept
        assert len(made.filter(request(), snapshot.candidates())) == left


class Producer:
    type = "mine"
    Parameters = NoParameters
    name = "p"
    produces: ClassVar[frozenset[str]] = frozenset({KEY})
    consumes: ClassVar[frozenset[str]] = frozenset()

    def __init__(self, values: Values = ()) -> None:
        self.values = values

    def produce(self, request: InferenceRequest, candidates: Candidates) -> None:
        leave_endpoint_values(request, self.name, KEY, candidates, self.values)


def test_what_a_producer_leaves_goes_before_what_endpoints_report() -> None:
    snapshot = reported([1, 2, 3])
    producer = Producer([30.0, 20.0, None])
    asked, handle = request(), FakeHandle(p=producer)
    producer.produce(asked, snapshot.candidates())
    assert list(scorer("lower", handle, "p").score(asked, snapshot.candidates())) == [0.0, 1.0, 0.0]
    assert list(scorer("lower", handle, "p", fixedRange={"min": 0, "max": 40}).score(asked, snapshot.candidates())) == [0.25, 0.5, 0.0]
    made = kept_by("LessThan", 25, handle, producer="p")
    assert list(made.filter(asked, snapshot.candidates()).positions) == [1, 2]
    # Another request has nothing of it.
    assert list(scorer("lower", handle, "p").score(request(), snapshot.candidates())) == [0.0, 0.0, 0.0]
    assert len(made.filter(request(), snapshot.candidates())) == 3


def test_values_of_fewer_candidates_are_found_by_position() -> None:
    snapshot, asked = idle(4), request()
    leave_endpoint_values(asked, "p", KEY, only(snapshot, 1, 3), [5, float("nan")])
    assert list(left_endpoint_values(asked, "p", KEY, snapshot)) == [None, 5.0, None, None]
    assert list(left_endpoint_values(asked, "p", KEY, idle(2))) == [None, None], "of other endpoints"
    assert list(left_endpoint_values(asked, "q", KEY, snapshot)) == [None] * 4
    with pytest.raises(ValueError, match="p left 1 values of queue_depth for 4 endpoints"):
        leave_endpoint_values(asked, "p", KEY, snapshot.candidates(), [1.0])
    with pytest.raises(TypeError):
        leave_endpoint_values(asked, "p", KEY, only(snapshot, 0), ["many"])  # type: ignore[list-item]


def test_a_producer_must_be_one_of_this_attribute() -> None:
    other = Producer()
    other.produces = frozenset({"else"})  # type: ignore[misc]
    with pytest.raises(ParameterError, match="'p' does not produce 'queue_depth'; it produces else"):
        scorer("lower", FakeHandle(p=other), "p")
    with pytest.raises(ParameterError, match=r"'p' \(endpoint-attribute-scorer\) is neither an extractor nor a data producer"):
        kept_by("Equal", 1, FakeHandle(p=scorer()), producer="p")


@pytest.mark.parametrize(
    ("normalization", "text"),
    [
        ({"fixedRange": {"min": 1, "max": 1}}, "min 1 must be less than max 1"),
        ({"fixedRange": {"min": 0, "max": float("inf")}}, "must be finite"),
        ({"fixedRange": {"min": 0, "max": 1}, "adaptiveRange": {}}, "not both"),
        ({"fixedRange": {"min": 0}}, "max"),
        ({"range": {}}, "range"),
    ],
)
def test_ranges_that_cannot_be(normalization: dict[str, Any], text: str) -> None:
    with pytest.raises(msgspec.ValidationError, match=text):
        scorer(**normalization)


SIZE = 5
VALUE = st.one_of(st.none(), st.integers(0, 4), st.floats(-10, 10))
STEPS = st.lists(st.tuples(st.integers(1, SIZE), VALUE, st.booleans()), max_size=30)


@settings(max_examples=200, deadline=None)
@given(steps=STEPS)
def test_what_is_kept_is_what_would_be_computed_afresh(steps: list[tuple[int, float | None, bool]]) -> None:
    datastore = Datastore()
    datastore.set_endpoints("a", [endpoint(n) for n in range(1, SIZE + 1)])
    fixed = {"fixedRange": {"min": 0, "max": 4}}
    kinds = [("lower", {}), ("higher", {}), ("lower", fixed)]
    kept = [scorer(better, **how) for better, how in kinds]
    filtering = kept_by("LessThan", 3)
    history: list[tuple[Sequence[float], list[float]]] = []
    for number, value, other_endpoints in steps:
        if other_endpoints:
            datastore.set_endpoints("a", [endpoint(n) for n in range(1, number + 1)])
        state = datastore.find(endpoint(number).host_port)
        if state is None:
            continue
        attributes = {} if value is None else {KEY: value}
        datastore.report(state.endpoint, replace(state.metrics, waiting=number, attributes=attributes))
        snapshot = datastore.snapshot()
        fresh = pool(list(snapshot.metrics))
        for made, (better, how) in zip(kept, kinds, strict=True):
            scores = made.score(request(), snapshot.candidates())
            assert list(scores) == list(scorer(better, **how).score(request(), fresh.candidates()))
            assert all(0.0 <= s <= 1.0 for s in scores)
            history.append((scores, list(scores)))
        left = filtering.filter(request(), snapshot.candidates())
        again = kept_by("LessThan", 3).filter(request(), fresh.candidates())
        assert list(left.positions) == list(again.positions)
        assert left.endpoints == tuple(snapshot.endpoints[p] for p in left.positions)
    assert all(list(scores) == as_they_were for scores, as_they_were in history), "what was handed out stays as it was"


ATTRIBUTE_SCORER = (
    "- {{type: endpoint-attribute-scorer, parameters: {{attributeKey: a, producer: {}, algorithm: {{type: linear_lower_is_better}}}}}}\n"
)


def test_an_attribute_may_come_from_an_extractor_that_is_there_anyway() -> None:
    made = pipeline("plugins:\n" + ATTRIBUTE_SCORER.format("core-metrics-extractor"))
    assert "core-metrics-extractor" in made.built


def test_an_attribute_of_nobody_is_refused() -> None:
    text = refused("plugins:\n" + ATTRIBUTE_SCORER.format("cor-metrics"))
    assert "'endpoint-attribute-scorer' references undefined plugin 'cor-metrics'" in text
    text = refused("plugins:\n" + ATTRIBUTE_SCORER.format("queue-scorer"))
    assert text.startswith("epp.yaml:4: plugins[0].parameters.producer: 'queue-scorer' (queue-scorer) is neither")
