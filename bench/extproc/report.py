"""The report: JSON with every round, Markdown with the medians."""

from __future__ import annotations

import os
import platform
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import msgspec

from bench.extproc.arms import Arm
from bench.extproc.statistics import Cell, Row, compare, rows
from bench.extproc.targets import MIB, Verdict, verdicts
from bench.extproc.workloads import Workload

_NONE = "–"


class Skipped(msgspec.Struct, frozen=True):
    """An arm that this picker cannot run."""

    arm: str
    reason: str


class Report(msgspec.Struct):
    """All there is to say of a run. `cells` has each round, `rows` the medians."""

    envoy: str
    python: str
    cores: int
    rounds: int
    seconds: float
    client: str
    complete: bool
    skipped: list[Skipped]
    cells: list[Cell]
    rows: list[Row]
    targets: list[Verdict]

    @property
    def ok(self) -> bool:
        """Nothing failed, and no target that was measured is missed."""
        return self.complete and not any(row.failed for row in self.rows) and not any(v.met is False for v in self.targets)


def build(
    cells: list[Cell], skipped: list[Skipped], *, envoy: str, rounds: int, seconds: float, client: str, complete: bool
) -> Report:  # fmt: skip
    """From what was measured."""
    compare(cells)
    found = rows(cells)
    return Report(
        envoy=envoy,
        python=platform.python_version(),
        cores=len(os.sched_getaffinity(0)),
        rounds=rounds,
        seconds=seconds,
        client=client,
        complete=complete,
        skipped=skipped,
        cells=cells,
        rows=found,
        targets=verdicts(found),
    )


def to_json(report: Report) -> bytes:
    """Indented."""
    return msgspec.json.format(msgspec.json.encode(report), indent=1) + b"\n"


# ---- Markdown --------------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Column:
    """A title, and the values it shows, one after the other."""

    title: str
    metrics: tuple[str, ...]
    show: Callable[[float], str]


def _plain(value: float) -> str:
    """Three digits, or all those before the point."""
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"


def _ms(value: float) -> str:
    return f"{value:.0f}" if abs(value) >= 100 else f"{value:.1f}" if abs(value) >= 10 else f"{value:.2f}"


def _mib(value: float) -> str:
    return f"{value / MIB:.0f}"


def _percent(value: float) -> str:
    return f"{100 * value:.1f}"


_TOTAL = ("p50_ms", "p95_ms", "p99_ms")
_ADDED = ("added_p50_ms", "added_p95_ms", "added_p99_ms")
_PROCESS = (
    Column("RSS, MiB", ("picker_rss_bytes",), _mib),
    Column("loop lag p99, ms", ("lag_p99_ms",), _ms),
    Column("GC, % of CPU", ("gc_share_of_cpu",), _percent),
    Column("longest GC, ms", ("gc_longest_ms",), _ms),
)
_REQUESTS = (
    Column("picker, µs/request", ("picker_us_per_request",), _plain),
    Column("Envoy, µs/request", ("envoy_us_per_request",), _plain),
    Column("picker / Envoy", ("picker_to_envoy",), _plain),
    Column("picker, cores", ("picker_cores",), _plain),
    Column("requests/s", ("requests_per_s",), _plain),
    Column("p50 / p95 / p99, ms", _TOTAL, _ms),
    Column("added p50 / p95 / p99, ms", _ADDED, _ms),
    *_PROCESS,
    Column("GC runs / 1,000 requests", ("gc_per_1000_requests",), _plain),
    Column("blocks kept / request", ("blocks_more_per_request",), _plain),
)
_EVENTS = (
    Column("picker, µs/event", ("picker_us_per_event",), _plain),
    Column("Envoy, µs/event", ("envoy_us_per_event",), _plain),
    Column("picker / Envoy", ("picker_to_envoy",), _plain),
    Column("events/s", ("events_per_s",), _plain),
    Column("events/read", ("events_per_read",), _plain),
    Column("first event p50 / p95 / p99, ms", _TOTAL, _ms),
    Column("added p50 / p95 / p99, ms", _ADDED, _ms),
    *_PROCESS,
)
_IDLE = (Column("picker, cores", ("picker_cores",), _plain), *_PROCESS)


def _columns(workload: Workload) -> Sequence[Column]:
    if workload.idle:
        return tuple(column for column in _IDLE if column.metrics != ("lag_p99_ms",))
    return _EVENTS if workload.per_event else _REQUESTS


def to_markdown(report: Report, arms: Sequence[Arm], workloads: Sequence[Workload]) -> str:
    """The tables, without a title of their own."""
    rounds = "1 round" if report.rounds == 1 else f"{report.rounds} rounds"
    lines = [
        f"Envoy {report.envoy} (one worker), Python {report.python}, {report.cores} cores shared by all parts. Medians of {rounds} of "
        f"{report.seconds:g} s. `small` by {'our own client' if report.client == 'own' else report.client}.",
    ]
    if not report.complete:
        lines += ["", "**Interrupted: not all rounds were run.**"]
    lines += ["", *_targets(report.targets), ""]
    lines += ["| arm | |", "|---|---|", *[f"| {arm.name} | {arm.note} |" for arm in arms]]
    lines += [f"| {each.arm} | skipped: {_cell_text(each.reason)} |" for each in report.skipped]
    by_workload: dict[str, list[Row]] = {}
    for row in report.rows:
        by_workload.setdefault(row.workload, []).append(row)
    for workload in workloads:
        if workload.name in by_workload:
            lines += ["", f"**{workload.name}**: {workload.title}", "", *_table(_columns(workload), by_workload[workload.name])]
    return "\n".join(lines) + "\n"


def _table(columns: Sequence[Column], found: Sequence[Row]) -> list[str]:
    used = [column for column in columns if any(name in row.values for row in found for name in column.metrics)]
    width = max(len(used), 1)
    lines = [f"| arm | {' | '.join(column.title for column in used)} |", "|---" * (width + 1) + "|"]
    for row in found:
        if row.failed is not None:
            lines.append(f"| {row.arm} | failed: {_cell_text(row.failed)} |" + " |" * (width - 1))
        else:
            lines.append(f"| {row.arm} | {' | '.join(_shown(column, row) for column in used)} |")
    return lines


def _shown(column: Column, row: Row) -> str:
    values = [row.values.get(name) for name in column.metrics]
    if all(value is None for value in values):
        return _NONE
    return " / ".join([_NONE if value is None else column.show(value) for value in values])


def _targets(found: Sequence[Verdict]) -> list[str]:
    words = {True: "met", False: "**not met**", None: _NONE}
    lines = ["| target | workload | arm | wanted | measured | |", "|---|---|---|---|---|---|"]
    return [*lines, *[f"| {v.what} | {v.workload} | {v.arm} | {v.wanted} | {v.shown} | {words[v.met]} |" for v in found]]


def _cell_text(text: str) -> str:
    """On one line, of a length that a table bears."""
    flat = " ".join(text.split()).replace("|", "\\|")
    return flat if len(flat) <= 300 else flat[:297] + "..."


def one_line(cell: Cell) -> str:
    """For the progress that is shown while it runs."""
    if cell.failed is not None:
        return f"failed: {cell.failed}"
    values = cell.values
    parts = []
    for metric, text in (
        ("picker_us_per_event", "picker {} µs/event"), ("envoy_us_per_event", "Envoy {} µs/event"), ("events_per_s", "{} events/s"),
        ("picker_us_per_request", "picker {} µs/request"), ("envoy_us_per_request", "Envoy {} µs/request"),
        ("requests_per_s", "{} requests/s"), ("p50_ms", "p50 {} ms"), ("p99_ms", "p99 {} ms"), ("picker_cores", "picker {} cores"),
    ):  # fmt: skip
        if metric in values:
            parts.append(text.format(_plain(values[metric])))
    return ", ".join(parts)
