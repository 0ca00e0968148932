"""What the picker is meant to reach."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import msgspec

from bench.extproc.arms import OURS
from bench.extproc.statistics import Row

MIB = 1 << 20


@dataclass(frozen=True, slots=True)
class Target:
    """`metric` of an arm under a workload is to be at most `limit`, or at least that. Shown as `metric` / `scale` in `unit`."""

    what: str
    workload: str
    arm: str
    metric: str
    limit: float
    unit: str = ""
    scale: float = 1.0
    at_least: bool = False


class Verdict(msgspec.Struct, frozen=True):
    """`value` and `met` None: not measured, or failed."""

    what: str
    workload: str
    arm: str
    wanted: str
    value: float | None
    shown: str
    met: bool | None


TARGETS = (
    Target("picker's CPU per request", "small", OURS, "picker_to_envoy", 0.75, "× Envoy's"),
    Target("requests/s of the whole chain", "small", OURS, "requests_per_s", 2_500, at_least=True),
    Target("added p99 at 500 requests/s", "rate500", OURS, "added_p99_ms", 4.0, "ms"),
    Target("picker's CPU per event", "sse100", OURS, "picker_to_envoy", 0.45, "× Envoy's"),
    Target("picker's CPU per event", "sse1000", OURS, "picker_to_envoy", 0.45, "× Envoy's"),
    Target("the same, almost without scraping", "sse1000", "h2-1s", "picker_to_envoy", 0.45, "× Envoy's"),
    Target("picker's CPU per event of bodies that it need not see", "sse1000", "no-metrics-1s", "picker_us_per_event", 2.0, "µs"),
    Target(
        f"Envoy's CPU per event of bodies that the picker need not see, against `{OURS}`",
        "sse1000", "no-metrics-1s", f"envoy_us_per_event_to_{OURS}", 0.5, "×",
    ),
    Target("added p50 of long prompts", "long", OURS, "added_p50_ms", 12.0, "ms"),
    Target("picker's CPU per long prompt", "long", OURS, "picker_us_per_request", 1_000.0, "ms", 1_000.0),
    Target("the same, almost without scraping", "long", "h2-1s", "picker_us_per_request", 1_000.0, "ms", 1_000.0),
    Target("picker's cores at 10 prompts/s of a million tokens", "million", OURS, "picker_cores", 0.5),
    Target("picker's memory with prompts of a million tokens", "million", OURS, "picker_rss_bytes", 400.0 * MIB, "MiB", MIB),
    Target("cores for 100 idle endpoints at the fixed 50 ms", "idle100", "reference", "picker_cores", 0.25),
    Target("cores for 100 idle endpoints, adaptive", "idle100", OURS, "picker_cores", 0.05),
)  # fmt: skip


def verdicts(rows: Iterable[Row], targets: Iterable[Target] = TARGETS) -> list[Verdict]:
    """One for each target."""
    found = {(row.workload, row.arm): row for row in rows}
    return [_verdict(target, found.get((target.workload, target.arm))) for target in targets]


def _verdict(target: Target, row: Row | None) -> Verdict:
    value = None if row is None else row.values.get(target.metric)
    if row is not None and row.failed is not None:
        shown = "failed"
    elif value is None:
        shown = "not measured"
    else:
        shown = _number(target, value)
    met = None if value is None else value >= target.limit if target.at_least else value <= target.limit
    wanted = f"{'≥' if target.at_least else '≤'} {_number(target, target.limit)}"
    return Verdict(target.what, target.workload, target.arm, wanted, value, shown, met)


def _number(target: Target, value: float) -> str:
    scaled = value / target.scale
    text = f"{scaled:,.0f}" if abs(scaled) >= 100 else f"{scaled:.3g}"
    return f"{text} {target.unit}".rstrip()
