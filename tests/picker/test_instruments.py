"""Counters, gauges and histograms as they are scraped."""

from __future__ import annotations

from math import inf

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.parser import text_string_to_metric_families

from picker.instruments import MAX_LABEL_CHARS, OTHER, Counter, Distribution, Gauge, Histogram, InstrumentCollector, LabelCap, Twin


def page(*families: Counter | Gauge | Histogram) -> str:
    registry = CollectorRegistry(auto_describe=False)
    registry.register(InstrumentCollector(families))
    return generate_latest(registry).decode()


def samples(text: str) -> dict[tuple[str, tuple[tuple[str, str], ...]], float]:
    return {(s.name, tuple(sorted(s.labels.items()))): s.value for family in text_string_to_metric_families(text) for s in family.samples}


def test_a_counter() -> None:
    counter = Counter("x_total", "Things.", ("kind",))
    counter.cell("a").value += 2
    counter.cell("a").value += 1
    counter.cell('quo"te\n').value += 1
    assert page(counter) == (
        '# HELP x_total [ALPHA] Things.\n# TYPE x_total counter\nx_total{kind="a"} 3.0\nx_total{kind="quo\\"te\\n"} 1.0\n'
    )


def test_a_gauge_and_its_removal() -> None:
    gauge = Gauge("x", "Things.", ("kind",))
    gauge.cell("a").value = -1.5
    gauge.cell("b").value = 2
    gauge.remove("b")
    gauge.remove("never there")
    assert page(gauge) == '# HELP x [ALPHA] Things.\n# TYPE x gauge\nx{kind="a"} -1.5\n'


def test_a_family_without_cells_shows_its_name_only() -> None:
    assert page(Gauge("x", "Things.", ("kind",))) == "# HELP x [ALPHA] Things.\n# TYPE x gauge\n"


def test_bounds_are_written_as_go_writes_them() -> None:
    histogram = Histogram("x", "Sizes.", (0.00005, 0.0001, 0.00205, 0.5, 1, 1.25, 64, 32778, 131072, 1048576, 2**30))
    histogram.cell().observe(0)
    bounds = [line.split('"')[1] for line in page(histogram).splitlines() if line.startswith("x_bucket")]
    assert bounds == [
        "5e-05",
        "0.0001",
        "0.00205",
        "0.5",
        "1",
        "1.25",
        "64",
        "32778",
        "131072",
        "1.048576e+06",
        "1.073741824e+09",
        "+Inf",
    ]


@given(values=st.lists(st.floats(-10, 10) | st.sampled_from([0.5, 1.0, 4.0])), bounds=st.sets(st.floats(-5, 5), min_size=1, max_size=6))
def test_buckets_equal_a_naive_count(values: list[float], bounds: set[float]) -> None:
    ascending = sorted(bounds)
    histogram = Histogram("x", "Sizes.", ascending)
    cell = histogram.cell()
    for value in values:
        cell.observe(value)
    (family,) = histogram.collect()
    counted = [s.value for s in family.samples if s.name == "x_bucket"]
    assert counted == [sum(1 for v in values if v <= bound) for bound in [*ascending, inf]]
    if ascending[0] >= 0:  # Prometheus has no sum for histograms with negative bounds
        by_name = {s.name: s.value for s in family.samples}
        assert by_name["x_count"] == len(values)
        assert by_name["x_sum"] == pytest.approx(sum(values))


def test_an_upper_bound_is_inclusive() -> None:
    cell = Distribution((1.0, 2.0))
    for value in (1.0, 1.0000001, 2.0, 2.1):
        cell.observe(value)
    assert cell.counts == [1, 2, 1]
    assert cell.total == pytest.approx(6.1000001)


def test_twins_sum_over_the_labels_they_do_not_have() -> None:
    twins = [Twin("old_total", {"m": "model"}), Twin("older_total", {})]
    counter = Counter("new_total", "Things.", ("model", "flow"), twins)
    for model, flow, count in (("a", "x", 1), ("a", "y", 2), ("b", "x", 4)):
        counter.cell(model, flow).value += count
    text = page(counter)
    found = samples(text)
    assert found["old_total", (("m", "a"),)] == 3
    assert found["old_total", (("m", "b"),)] == 4
    assert found["older_total", ()] == 7
    assert "# HELP old_total [ALPHA] [Deprecated: Use new_total] Things.\n# TYPE old_total counter\n" in text


def test_histogram_twins_sum_buckets_and_totals_and_leave_the_cells_alone() -> None:
    histogram = Histogram("new", "Sizes.", (1, 2), ("model", "flow"), [Twin("old", {"model": "model"})])
    histogram.cell("a", "x").observe(1)
    histogram.cell("a", "y").observe(1.5)
    histogram.cell("a", "y").observe(9)
    for _ in range(2):
        found = samples(page(histogram))
        assert [found["old_bucket", (("le", le), ("model", "a"))] for le in ("1", "2", "+Inf")] == [1, 2, 3]
        assert found["old_count", (("model", "a"),)] == 3
        assert found["old_sum", (("model", "a"),)] == 11.5
    assert histogram.cell("a", "x").counts == [1, 0, 0]


@given(st.lists(st.tuples(st.sampled_from("ab"), st.sampled_from("xyz"), st.floats(0, 10)), max_size=30))
def test_a_twin_has_the_same_total_as_its_family(events: list[tuple[str, str, float]]) -> None:
    histogram = Histogram("new", "Sizes.", (1, 2, 5), ("model", "flow"), [Twin("old", {"f": "flow"})])
    for model, flow, value in events:
        histogram.cell(model, flow).observe(value)
    found = samples(page(histogram))
    for part in ("bucket", "count", "sum"):
        sums = [sum(v for (name, _), v in found.items() if name == f"{which}_{part}") for which in ("old", "new")]
        assert sums[0] == pytest.approx(sums[1])


def test_the_wrong_number_of_labels_is_an_error() -> None:
    with pytest.raises(ValueError, match="takes labels"):
        Counter("x_total", "Things.", ("kind",)).cell()


def test_a_cell_is_made_once() -> None:
    gauge = Gauge("x", "Things.", ("kind",))
    assert gauge.cell("a") is gauge.cell("a")


def test_a_label_cap_lets_the_first_ones_through() -> None:
    cap = LabelCap(2)
    assert [cap(v) for v in ("a", "b", "c", "a", "d", "b", "c")] == ["a", "b", OTHER, "a", OTHER, "b", OTHER]


def test_a_long_label_value_is_not_kept() -> None:
    cap = LabelCap()
    longest = "m" * MAX_LABEL_CHARS
    assert (cap(longest), cap(longest + "m")) == (longest, OTHER)


@given(st.lists(st.text(max_size=3)), st.integers(0, 5))
def test_a_label_cap_never_lets_more_through_than_its_limit(values: list[str], limit: int) -> None:
    cap = LabelCap(limit)
    seen = {cap(v) for v in values} - {OTHER}
    assert len(seen) <= limit
    assert seen <= set(values)
