"""What must be true at the end of a soak, and the report."""

from __future__ import annotations

import asyncio
import json
from dataclasses import dataclass, field
from typing import Any

from bench.http import get, request
from bench.memory import Samples
from bench.soak.load import Tally
from bench.soak.stage import Stage, samples
from bench.soak.stub import Stub

GAUGES = (
    "llm_d_epp_extproc_streams_inflight", "llm_d_epp_request_running", "llm_d_epp_inflight_requests", "llm_d_epp_inflight_tokens",
    "llm_d_epp_flow_control_queue_size", "llm_d_epp_flow_control_queue_bytes", "llm_d_epp_flow_control_reclaim_target",
    "llm_d_epp_flow_control_pending_reclaim",
)  # fmt: skip
GROWTH_ALLOWED_MIB = 8.0
_SETTLE_S = 30.0
_ENVOY = ("upstream_cx_total", "upstream_cx_protocol_error", "upstream_rq_total", "upstream_rq_rx_reset", "upstream_rq_timeout")


@dataclass
class Report:
    """`failures`: the checks that did not hold."""

    facts: dict[str, Any] = field(default_factory=dict)
    failures: list[str] = field(default_factory=list)

    def check(self, holds: bool, what: str) -> None:
        """One check."""
        if not holds:
            self.failures.append(what)

    def text(self) -> str:
        """For people."""
        lines = [f"{name:34} {_shown(value)}" for name, value in self.facts.items()]
        lines += [f"FAILED: {what}" for what in self.failures] or ["all checks hold"]
        return "\n".join(lines) + "\n"

    def json(self) -> str:
        """For programs."""
        return json.dumps({**self.facts, "failures": self.failures}, indent=1) + "\n"


def _shown(value: object) -> str:
    if isinstance(value, dict):
        return ", ".join([f"{name} {_shown(v)}" for name, v in value.items()]) or "none"
    return f"{value:.2f}" if isinstance(value, float) else str(value)


async def verdict(stage: Stage, tally: Tally, stub: Stub, memory: Samples, seconds: float) -> Report:
    """To be asked for when the load has ended."""
    report = Report()
    facts = report.facts
    busy = await _settled(stage)
    page = await _page(stage.metrics_port, "/metrics")
    facts["seconds"] = seconds
    facts["requests"] = dict(tally.sent)
    facts["answered as expected"] = dict(tally.good)
    facts["left by the client, by phase"] = dict(tally.left)
    facts["failed by the server on purpose"] = dict(tally.faults)
    if tally.turned_away:
        facts["turned away by flow control"] = dict(tally.turned_away)
        facts["time in the queue ended with"] = _by_label(page, "llm_d_epp_flow_control_requests_total", "outcome")
        # Streams that broke off are taken for evicted ones; there cannot be more of those than revocations.
        revoked = sum(_by_label(page, "llm_d_epp_flow_control_revocations_issued_total", "priority").values())
        broken = tally.turned_away["in the middle of it"]
        report.check(broken <= revoked, f"{broken} streams broke off, and {revoked} requests were evicted")
    facts["faults injected"] = dict(stub.injected)
    facts["unexplained"] = tally.unexplained
    facts["ext_proc streams by code"] = _by_label(page, "llm_d_epp_extproc_streams_total", "code")
    facts["requests that ended in an error"] = _by_label(page, "llm_d_epp_request_error_total", "error_code")
    facts["envoy to picker"] = picker_stats = await _picker_stats(stage)
    trend = memory.trend()
    if trend is None:
        facts["picker memory"] = f"{len(memory.sizes)} samples are too few to tell"
    else:
        facts["picker memory after warm-up"] = {
            "first quarter MiB": trend.first_mib, "last quarter MiB": trend.last_mib, "slope MiB/hour": trend.mib_per_hour
        }  # fmt: skip
        report.check(trend.grown_mib <= GROWTH_ALLOWED_MIB, f"the picker grew by {trend.grown_mib:.1f} MiB after warm-up")
    accounted = tally.good.total() + tally.left.total() + tally.faults.total() + tally.turned_away.total()
    report.check(accounted == tally.total, f"{tally.total - accounted} of {tally.total} requests went wrong without a reason")
    report.check(tally.good.total() > 0, "no request was answered")
    report.check(not busy, f"still in flight {_SETTLE_S:g} s after the load: {', '.join(busy)}")
    report.check(picker_stats.get("upstream_cx_protocol_error", 0) == 0, "Envoy saw protocol errors on its connections to the picker")
    complaints = [line for line in stage.picker.log().splitlines() if "Traceback" in line or " ERROR" in line]
    report.check(not complaints, f"the picker's log has {len(complaints)} errors, first: {complaints[:1]}")
    try:
        stage.check()
    except Exception as error:
        report.failures.append(str(error))
    return report


def _by_label(page: str, name: str, label: str) -> dict[str, int]:
    found: dict[str, int] = {}
    for labels, count in samples(page, name).items():
        value = labels.partition(f'{label}="')[2].partition('"')[0]
        found[value] = found.get(value, 0) + int(count)
    return found


async def _settled(stage: Stage) -> list[str]:
    """What is still in flight when everything should have ended; empty as soon as nothing is."""
    busy: list[str] = []
    for _ in range(int(_SETTLE_S / 0.2)):
        page = await _page(stage.metrics_port, "/metrics")
        busy = [f"{labels} {value:g}" for name in GAUGES for labels, value in samples(page, name).items() if value]
        if not busy:
            break
        await asyncio.sleep(0.2)
    return busy


async def _page(port: int, path: str) -> str:
    return (await request(port, get(path)))[1].decode()


async def _picker_stats(stage: Stage) -> dict[str, int]:
    """Envoy's own counters for its connections to the picker."""
    text = await _page(stage.admin_port, "/stats?filter=^cluster\\.picker\\.upstream")
    found = dict(line.rsplit(": ", 1) for line in text.splitlines() if ": " in line)
    return {name: int(found[f"cluster.picker.{name}"]) for name in _ENVOY if f"cluster.picker.{name}" in found}
