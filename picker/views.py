"""What the side door shows of the core, as JSON."""

from __future__ import annotations

import asyncio
import sys
import threading
import time
import traceback
from typing import TYPE_CHECKING, Any

from picker.admin import Query, View

if TYPE_CHECKING:
    from picker.admission.flow.controller import FlowController
    from picker.core import Core
    from picker.datalayer.datastore import EndpointState

MAX_DECISIONS = 1000


def views(core: Core) -> dict[str, View]:
    """Paths and what they answer."""

    def alive(query: Query) -> tuple[int, Any]:
        return 200, {"status": "alive"}

    def taken_out() -> dict[str, list[str]]:
        return {guard.name: points for guard in core.pipeline.guards if (points := guard.taken_out)}

    def plugins(query: Query) -> tuple[int, Any]:
        return 200, {"plugins": [guard.state() for guard in core.pipeline.guards]}

    def ready(query: Query) -> tuple[int, Any]:
        reasons = core.readiness.reasons
        details: dict[str, Any] = {source.source: getattr(source, "status", None) for source in core.sources}
        if core.objectives_file is not None:
            details["objectives-file"] = core.objectives_file.status
        if core.settings.config_file is not None:
            details["config-file"] = core.config_status
        return (503 if reasons else 200), {"ready": not reasons, "reasons": reasons, "sources": details, "plugins_taken_out": taken_out()}

    def endpoints(query: Query) -> tuple[int, Any]:
        now_s = time.monotonic()
        return 200, {"endpoints": [_endpoint(core, state, now_s) for state in core.datastore.states()]}

    def decisions(query: Query) -> tuple[int, Any]:
        text = query.get("limit", "20")
        if not text.isdecimal() or not 1 <= int(text) <= MAX_DECISIONS:
            raise ValueError(f"limit={text}: expected a number from 1 to {MAX_DECISIONS}")
        records = core.decisions.find(request_id=query.get("request_id"), limit=int(text))
        return 200, {"decisions": [record.as_dict() for record in records]}

    def tasks(query: Query) -> tuple[int, Any]:
        return 200, {"tasks": [_task(task) for task in asyncio.all_tasks()], "threads": _threads()}

    def flow(query: Query) -> tuple[int, Any]:
        return 200, {"enabled": core.flow is not None, **({} if core.flow is None else _flow(core.flow, time.monotonic()))}

    debug: dict[str, View] = {"/debug/flow": flow, **({"/debug/tasks": tasks} if core.settings.enable_pprof else {})}
    return {
        "/healthz": alive,
        "/readyz": ready,
        "/debug/endpoints": endpoints,
        "/debug/decisions": decisions,
        "/debug/plugins/state": plugins,
        **debug,
    }


MAX_FLOWS = 100


def _flow(controller: FlowController, now_s: float) -> dict[str, Any]:
    bands: list[dict[str, Any]] = []
    for band, ceiling in zip(controller.descending(), controller.ceilings(), strict=True):
        longest = sorted((f for f in band.flows.values() if f.requests), key=lambda f: -f.requests)[:MAX_FLOWS]
        flows = [
            {
                "fairness_id": f.fairness_id,
                "requests": f.requests,
                "bytes": f.bytes,
                "head_wait_s": None if (head := f.head()) is None else now_s - head.enqueued_s,
            }
            for f in longest
        ]
        bands.append({
            "priority": band.priority,
            "ceiling": ceiling,
            "requests": band.requests,
            "bytes": band.bytes,
            "flows": len(band.flows),
            "longest_flows": flows,
        })  # fmt: skip
    return {
        "saturation": controller.room.stages(now_s),
        "requests": controller.requests,
        "bytes": controller.bytes,
        "evictable": controller.evictor.evictable if controller.evictor is not None else 0,
        "bands": bands,
    }


def _task(task: asyncio.Task[Any]) -> dict[str, Any]:
    frames = task.get_stack(limit=8)
    return {"name": task.get_name(), "at": [f"{f.f_code.co_filename}:{f.f_lineno} {f.f_code.co_qualname}" for f in frames]}


def _threads() -> list[dict[str, Any]]:
    names = {thread.ident: thread.name for thread in threading.enumerate()}
    return [
        {"name": names.get(ident, str(ident)), "at": [f"{s.filename}:{s.lineno} {s.name}" for s in traceback.extract_stack(frame, limit=8)]}
        for ident, frame in sys._current_frames().items()
    ]


def _endpoint(core: Core, state: EndpointState, now_s: float) -> dict[str, Any]:
    endpoint, metrics, load = state.endpoint, state.metrics, state.load
    return {
        "name": endpoint.name,
        "namespace": endpoint.namespace,
        "address": endpoint.host_port,
        "labels": dict(endpoint.labels),
        "ready": state.alive,
        "metrics_age_s": metrics.age_s(now_s),
        "scrape_interval_s": core.collector.interval_s(state),
        "waiting": metrics.waiting,
        "running": metrics.running,
        "kv_usage": metrics.kv_usage,
        "block_size": metrics.block_size,
        "num_blocks": metrics.num_blocks,
        "active_adapters": sorted(metrics.active_adapters),
        "waiting_adapters": sorted(metrics.waiting_adapters),
        "max_adapters": metrics.max_adapters,
        "attributes": dict(metrics.attributes),
        "names": {key: sorted(words) for key, words in metrics.names.items()},
        "in_flight_requests": load.requests,
        "in_flight_tokens": load.tokens,
    }
