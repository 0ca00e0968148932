"""Percentiles, medians over rounds, and what follows from comparing the arms of one round."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from statistics import median

import msgspec

from bench.extproc.arms import BASELINE, OURS

LATENCIES = ("p50_ms", "p95_ms", "p99_ms")


def percentile(values: Sequence[float], percent: float) -> float:
    """Nearest rank: the smallest value that at least `percent` % of them do not exceed. ValueError when there are none."""
    if not values:
        raise ValueError("no values")
    return sorted(values)[max(0, math.ceil(len(values) * percent / 100) - 1)]


def latencies(seconds: Sequence[float]) -> dict[str, float]:
    """In ms, by name. Too few values have no p95 (20 are needed) or no p99 (100): it would be their greatest one by another name."""
    wanted = ((50, 1), (95, 20), (99, 100))
    return {f"p{percent}_ms": percentile(seconds, percent) * 1e3 for percent, least in wanted if len(seconds) >= least}


class Cell(msgspec.Struct, kw_only=True):
    """One arm under one workload in one round. `failed` says why there are no numbers to use; units are in the names of `values`."""

    arm: str
    workload: str
    round: int
    failed: str | None = None
    values: dict[str, float] = {}
    lags_ms: list[float] = []
    """How long `GET /healthz` took, each time it was asked."""


class Row(msgspec.Struct, kw_only=True):
    """One arm under one workload: medians of its rounds, or why there are none."""

    arm: str
    workload: str
    rounds: int
    failed: str | None = None
    values: dict[str, float] = {}


def compare(cells: Iterable[Cell]) -> None:
    """Adds what only a round as a whole can tell: latency above Envoy's own, and Envoy's cost compared with that under our default."""
    rounds: dict[tuple[str, int], dict[str, Cell]] = {}
    for cell in cells:
        if cell.failed is None:
            rounds.setdefault((cell.workload, cell.round), {})[cell.arm] = cell
    for arms in rounds.values():
        base, ours = arms.get(BASELINE), arms.get(OURS)
        for cell in arms.values():
            values = cell.values
            if base is not None and cell is not base:
                for name in LATENCIES:
                    if name in values and name in base.values:
                        values[f"added_{name}"] = values[name] - base.values[name]
            for unit in ("request", "event"):
                name = f"envoy_us_per_{unit}"
                if ours is not None and name in values and ours.values.get(name):
                    values[f"{name}_to_{OURS}"] = values[name] / ours.values[name]


def rows(cells: Sequence[Cell]) -> list[Row]:
    """In the order in which workloads and arms first appear. A row with a failed round has no numbers: they would be of other rounds."""
    grouped: dict[tuple[str, str], list[Cell]] = {}
    for cell in cells:
        grouped.setdefault((cell.workload, cell.arm), []).append(cell)
    return [_row(workload, arm, group) for (workload, arm), group in grouped.items()]


def _row(workload: str, arm: str, group: Sequence[Cell]) -> Row:
    bad = [cell for cell in group if cell.failed is not None]
    if bad:
        return Row(arm=arm, workload=workload, rounds=len(group), failed=f"{len(bad)} of {len(group)} rounds failed: {bad[0].failed}")
    values = _medians([cell.values for cell in group])
    lags_ms = [lag for cell in group for lag in cell.lags_ms]
    if lags_ms:
        # Too few of one round have a 99th percentile worth the name.
        values["lag_p50_ms"], values["lag_p99_ms"] = percentile(lags_ms, 50), percentile(lags_ms, 99)
    return Row(arm=arm, workload=workload, rounds=len(group), values=values)


def _medians(values: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """Of each name that all have."""
    return {name: median([each[name] for each in values]) for name in values[0] if all(name in each for each in values)}
