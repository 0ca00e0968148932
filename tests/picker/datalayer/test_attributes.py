"""Numbers and words beyond the load: from a page's custom metrics to the columns of a snapshot."""

from __future__ import annotations

import pytest

from picker.datalayer.datastore import Datastore
from picker.datalayer.engines import CustomMetric, Engines, EngineSpec, Extractor
from picker.endpoint import NEVER_SCRAPED, Endpoint, EndpointMetrics
from picker.errors import ConfigError


def extractor(*custom: tuple[str, str], waiting: str = "") -> Extractor:
    metrics = tuple([CustomMetric(attribute_key=key, metric_spec=spec) for key, spec in custom])
    return Engines([EngineSpec(name="mine", waiting=waiting, custom_metrics=metrics)], default="mine").extractor({})


def test_a_custom_metric_is_an_attribute() -> None:
    reader = extractor(("heat", "gpu_heat{gpu=0}"), ("drift", "drift"), waiting="q")
    first = reader.extract(b'q 2\ngpu_heat{gpu="0"} 71.5\ngpu_heat{gpu="1"} 99\ndrift -3\n', NEVER_SCRAPED, 1.0)
    assert first is not None
    assert (first.waiting, dict(first.attributes)) == (2, {"heat": 71.5, "drift": -3.0})
    second = reader.extract(b'q 2\ngpu_heat{gpu="0"} 71.5\n', first, 2.0)
    assert second is not None
    assert second.attributes is first.attributes, "what is missing stays, and nothing new costs nothing"
    assert not second.differs(first)
    third = reader.extract(b'gpu_heat{gpu="0"} 72\n', second, 3.0)
    assert third is not None
    assert third.differs(second)
    assert dict(third.attributes) == {"heat": 72.0, "drift": -3.0}


@pytest.mark.parametrize(
    ("page", "value"),
    [
        (b'x{a="1"} 1 100\nx{a="2"} 5 300\nx{a="3"} 9 200\n', 5.0),
        (b'x{a="1"} 1\nx{a="2"} 5\n', 3.0),
        (b'x{a="1"} NaN\nx{a="2"} 5\n', 5.0),
        (b"x +Inf\n", None),
        (b"y 1\n", None),
    ],
)
def test_several_samples(page: bytes, value: float | None) -> None:
    metrics = extractor(("k", "x")).extract(page, NEVER_SCRAPED, 1.0)
    assert (metrics and metrics.attributes.get("k")) == value


def test_a_page_with_nothing_but_an_unchanged_attribute_is_an_answer() -> None:
    reader = extractor(("k", "x"))
    first = reader.extract(b"x 1\n", NEVER_SCRAPED, 1.0)
    assert first is not None
    second = reader.extract(b"x 1\n", first, 2.0)
    assert second is not None
    assert second.updated_s == 2.0


@pytest.mark.parametrize(
    ("custom", "message"),
    [
        ([("", "x")], r"engine 'mine', customMetrics\[0\].attributeKey: expected a name"),
        ([("a", "x"), ("a", "y")], r"customMetrics\[1\].attributeKey: 'a' is given twice"),
        ([("a", " ")], r"customMetrics\[0\].metricSpec: expected a metric name"),
        ([("a", "x{")], r"customMetrics\[0\].metricSpec: metric spec 'x\{': after the name expected"),
    ],
)
def test_what_cannot_be_read_is_refused(custom: list[tuple[str, str]], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        extractor(*custom)


def test_columns_are_kept_until_an_attribute_changes() -> None:
    store = Datastore()
    a, b = Endpoint("a", "10.0.0.1", 1), Endpoint("b", "10.0.0.2", 1)
    store.set_endpoints("test", [a, b])
    store.report(b, EndpointMetrics(attributes={"heat": 7.0}, names={"models": frozenset({"m"})}, updated_s=1.0))
    first = store.snapshot()
    assert list(first.attribute("heat")) == [None, 7.0]
    assert list(first.names("models")) == [None, frozenset({"m"})]
    assert list(first.attribute("other")) == [None, None]
    store.report(a, EndpointMetrics(waiting=3, updated_s=2.0))
    second = store.snapshot()
    assert second is not first
    assert second.attribute("heat") is first.attribute("heat"), "a load moved, no attribute did"
    store.report(a, EndpointMetrics(waiting=3, attributes={"heat": 1.0}, updated_s=3.0))
    third = store.snapshot()
    assert list(third.attribute("heat")) == [1.0, 7.0]
    assert list(first.attribute("heat")) == [None, 7.0]
