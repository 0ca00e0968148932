"""What the side door shows of the core, as JSON."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from picker.admin import Query, View

if TYPE_CHECKING:
    from picker.datalayer.datastore import EndpointState
    from picker.runner import Core

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
        details = {source.source: getattr(source, "status", None) for source in core.sources}
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

    return {
        "/healthz": alive,
        "/readyz": ready,
        "/debug/endpoints": endpoints,
        "/debug/decisions": decisions,
        "/debug/plugins/state": plugins,
    }


def _endpoint(core: Core, state: EndpointState, now_s: float) -> dict[str, Any]:
    endpoint, metrics, load = state.endpoint, state.metrics, state.load
    return {
        "name": endpoint.name,
        "namespace": endpoint.namespace,
        "address": endpoint.host_port,
        "labels": dict(endpoint.labels),
        "ready": state.alive,
        "metrics_age_s": metrics.age_s(now_s),
        "scrape_interval_s": core.scraper.interval_s(state),
        "waiting": metrics.waiting,
        "running": metrics.running,
        "kv_usage": metrics.kv_usage,
        "block_size": metrics.block_size,
        "num_blocks": metrics.num_blocks,
        "active_adapters": sorted(metrics.active_adapters),
        "waiting_adapters": sorted(metrics.waiting_adapters),
        "max_adapters": metrics.max_adapters,
        "in_flight_requests": load.requests,
        "in_flight_tokens": load.tokens,
    }
