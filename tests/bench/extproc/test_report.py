"""Targets and the report."""

from __future__ import annotations

import json

import pytest

from bench.extproc.arms import ARMS
from bench.extproc.report import Report, Skipped, build, one_line, to_json, to_markdown
from bench.extproc.statistics import Cell, Row
from bench.extproc.targets import MIB, TARGETS, Target, verdicts
from bench.extproc.workloads import WORKLOADS

AT_MOST = Target("memory", "million", "h2", "rss_bytes", 400.0 * MIB, "MiB", MIB)
AT_LEAST = Target("rate", "small", "h2", "requests_per_s", 2_500, at_least=True)


@pytest.mark.parametrize(("target", "value", "met"), [
    (AT_MOST, 400.0 * MIB, True), (AT_MOST, 401.0 * MIB, False), (AT_LEAST, 2_500.0, True), (AT_LEAST, 2_499.0, False),
])  # fmt: skip
def test_a_target_is_met_at_its_limit(target: Target, value: float, met: bool) -> None:
    (verdict,) = verdicts([Row(arm="h2", workload=target.workload, rounds=1, values={target.metric: value})], [target])
    assert (verdict.met, verdict.value) == (met, value)


def test_a_target_is_told_in_its_unit() -> None:
    (verdict,) = verdicts([Row(arm="h2", workload="million", rounds=1, values={"rss_bytes": 84.4 * MIB})], [AT_MOST])
    assert (verdict.wanted, verdict.shown) == ("≤ 400 MiB", "84.4 MiB")
    (verdict,) = verdicts([Row(arm="h2", workload="small", rounds=1, values={"requests_per_s": 3207.6})], [AT_LEAST])
    assert (verdict.wanted, verdict.shown) == ("≥ 2,500", "3,208")


def test_what_was_not_measured_or_failed_is_neither_met_nor_missed() -> None:
    (verdict,) = verdicts([], [AT_MOST])
    assert (verdict.met, verdict.shown) == (None, "not measured")
    (verdict,) = verdicts([Row(arm="h2", workload="million", rounds=3, failed="it died")], [AT_MOST])
    assert (verdict.met, verdict.shown) == (None, "failed")


def test_targets_name_arms_and_workloads_that_meet() -> None:
    arms, workloads = {a.name: a for a in ARMS}, {w.name: w for w in WORKLOADS}
    for target in TARGETS:
        assert workloads[target.workload].takes(arms[target.arm]), target


def report(cells: list[Cell], skipped: list[Skipped] | None = None, complete: bool = True) -> Report:
    return build(cells, skipped or [], envoy="1.40.0", rounds=1, seconds=4.0, client="h2load", complete=complete)


def cell(arm: str, workload: str = "small", failed: str | None = None, **values: float) -> Cell:
    return Cell(arm=arm, workload=workload, round=0, failed=failed, values=values)


def table(markdown: str, workload: str) -> list[list[str]]:
    """The cells of a workload's table."""
    lines = markdown.partition(f"**{workload}**:")[2].splitlines()[2:]
    rows = lines[: lines.index("")] if "" in lines else lines
    return [[text.strip() for text in line.strip("|").split("|")] for line in rows]


def test_a_table_has_the_columns_that_somebody_fills() -> None:
    cells = [
        cell("envoy", envoy_us_per_request=53.13, requests_per_s=12_459.4, p50_ms=2.469, p95_ms=4.0, p99_ms=7.0),
        cell("h2", envoy_us_per_request=191.0, picker_us_per_request=142.6, requests_per_s=3206.0, p50_ms=9.5, p95_ms=13.7, p99_ms=117.0),
    ]
    head, rule, *rows = table(to_markdown(report(cells), ARMS, WORKLOADS), "small")
    assert head == ["arm", "picker, µs/request", "Envoy, µs/request", "requests/s", "p50 / p95 / p99, ms", "added p50 / p95 / p99, ms"]
    assert rule == ["---"] * len(head)
    assert rows == [
        ["envoy", "–", "53.1", "12,459", "2.47 / 4.00 / 7.00", "–"],
        ["h2", "143", "191", "3,206", "9.50 / 13.7 / 117", "7.03 / 9.70 / 110"],
    ]


def test_a_failed_cell_is_a_row_with_the_reason_on_one_line() -> None:
    cells = [cell("envoy", requests_per_s=1.0), cell("h2", failed="it\nsaid a|b")]
    rows = to_markdown(report(cells), ARMS, WORKLOADS).splitlines()
    assert "| h2 | failed: 1 of 1 rounds failed: it said a\\|b |" in rows


def test_a_workload_that_failed_for_all_has_a_table_all_the_same() -> None:
    markdown = to_markdown(report([cell("h2", "idle10", failed="no")]), ARMS, WORKLOADS)
    assert table(markdown, "idle10")[2:] == [["h2", "failed: 1 of 1 rounds failed: no"]]


def test_all_rows_of_a_table_are_equally_wide() -> None:
    cells = [cell("envoy", requests_per_s=1.0, envoy_us_per_request=2.0, p50_ms=1.0), cell("h2", failed="no")]
    assert len({line.count("|") for line in to_markdown(report(cells), ARMS, WORKLOADS).partition("**small**")[2].splitlines()[2:]}) == 1


def test_skipped_arms_and_an_interrupted_run_are_visible() -> None:
    markdown = to_markdown(report([], [Skipped("reference", "this picker has no --x")], complete=False), ARMS[:1], WORKLOADS)
    assert "| reference | skipped: this picker has no --x |" in markdown
    assert "**Interrupted" in markdown


def test_the_json_has_every_round_the_medians_and_the_targets() -> None:
    found = json.loads(to_json(report([cell("h2", requests_per_s=2600.0), cell("h2", "long", failed="no")])))
    assert [(c["arm"], c["workload"], c["failed"]) for c in found["cells"]] == [("h2", "small", None), ("h2", "long", "no")]
    assert found["rows"][0]["values"] == {"requests_per_s": 2600.0}
    assert len(found["targets"]) == len(TARGETS)
    assert {"met": True, "shown": "2,600"}.items() <= next(t for t in found["targets"] if t["what"].startswith("requests/s")).items()


def test_a_report_is_ok_when_nothing_failed_and_no_measured_target_is_missed() -> None:
    assert report([cell("h2", requests_per_s=2600.0)]).ok
    assert not report([cell("h2", requests_per_s=2400.0)]).ok
    assert not report([cell("h2", requests_per_s=2600.0), cell("echo", failed="no")]).ok
    assert not report([], complete=False).ok


def test_progress_says_the_numbers_or_the_reason() -> None:
    assert one_line(cell("h2", picker_us_per_request=101.4, p99_ms=3.5)) == "picker 101 µs/request, p99 3.5 ms"
    assert one_line(cell("h2", failed="it died")) == "failed: it died"
