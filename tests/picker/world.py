"""A picker without sockets: a real Director from a configuration text, over a Datastore that is filled by hand."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from picker.accounting.decisions import DecisionLog
from picker.datalayer.datastore import Datastore
from picker.datalayer.load_report import LoadReports
from picker.datalayer.objectives.store import ObjectiveStore, Table
from picker.director import Director, Pool
from picker.endpoint import Endpoint, EndpointLoad, EndpointMetrics
from picker.errors import Refusal
from picker.exchange import Exchange, Ledger, Place
from picker.extproc.conversation import Conversation
from picker.extproc.events import Deliver, undelivered
from picker.loader import Options, load
from picker.metrics import Metrics
from picker.request import InferenceRequest
from picker.stages import Stages
from picker.yaml_source import YamlSource
from tests.support.prometheus import Page

SCORERS = ("queue-scorer", "kv-cache-utilization-scorer", "prefix-cache-scorer", "lora-affinity-scorer")


def config(*plugins: str, scorers: Sequence[str] = SCORERS, parameters: str = "") -> str:
    """A configuration with one profile; `plugins` come in addition to the scorers, `parameters` are YAML lines to go with the last."""
    declared = "".join(f"- type: {name}\n" for name in (*scorers, *plugins)) + parameters
    used = "".join(f"  - pluginRef: {name}\n" for name in scorers)
    profile = f"schedulingProfiles:\n- name: default\n  plugins:\n{used}"
    return f"apiVersion: llm-d.ai/v1alpha1\nkind: EndpointPickerConfig\nplugins:\n{declared}{profile}"


HERMETIC = config("openai-parser")
"""The configuration of the contract's hermetic tests."""
DEFAULT_PARSERS = config()
PASSTHROUGH = config("passthrough-parser")


class P:
    """Pod i at 192.168.1.(i+1):8000 with its queue, KV usage and active adapters; `port` for a second server on the same address."""

    def __init__(self, index: int, queue: int = 0, kv: float = 0.0, *adapters: str, port: int = 8000, reports_load: bool = False) -> None:
        self.endpoint = Endpoint(f"pod-{index}-{port}", f"192.168.1.{index + 1}", port)
        self.metrics = EndpointMetrics(
            waiting=queue, kv_usage=kv, active_adapters=frozenset(adapters), max_adapters=4 if adapters else 0, updated_s=0.0,
            reports_load=reports_load,
        )  # fmt: skip


def at(index: int, port: int = 8000) -> str:
    """The address of pod i."""
    return f"192.168.1.{index + 1}:{port}"


class Gate:
    """A flow controller whose one queue is opened by hand."""

    def __init__(self, *, open: bool = False, evictable: bool = False) -> None:
        self.open = open
        self.evictable = evictable
        self.queue: list[Callable[[Refusal | None], None]] = []
        self.left = 0
        self.abandoned_requests = 0
        self.under_way: list[Exchange] = []

    def enqueue(self, request: InferenceRequest, decided: Callable[[Refusal | None], None]) -> Gate:
        """Let it in, or keep it."""
        if self.open:
            decided(None)
        else:
            self.queue.append(decided)
        return self

    def leave(self) -> None:
        """One has."""
        self.left += 1

    def abandoned(self, request: InferenceRequest) -> None:
        """One had its turn for nothing."""
        self.abandoned_requests += 1

    def opened(self, exchange: Exchange) -> None:
        """One is on its way."""
        exchange.evictable = self.evictable
        self.under_way.append(exchange)
        exchange.on_close(self.under_way.remove)


class World:
    """Everything behind a conversation. `now` is moved by hand."""

    def __init__(
        self,
        *pods: P,
        config: str = HERMETIC,
        max_body_bytes: int = 1 << 20,
        use_subset: bool = True,
        observe_responses: bool = True,
        gate: Gate | None = None,
        objectives: Table | None = None,
        plugin_paths: Sequence[Path] = (),
    ) -> None:
        self.now = 100.0
        self.metrics = Metrics()
        self.datastore = Datastore(now=lambda: self.now)
        self.decisions = DecisionLog()
        self.reports = LoadReports(self.datastore.report_load, lambda: self.now)
        self.ledger = Ledger(self.metrics, self._place, lambda: self.now, self.reports.take)
        self.pipeline = load(YamlSource(config, "test"), self.metrics, Options(experimental=True, plugin_paths=plugin_paths))
        self.objectives = ObjectiveStore(on_rewrite=self.metrics.count_rewrite)
        if objectives is not None:
            self.objectives.replace(objectives)
        self.director = Director(
            self.pipeline.stages,
            Pool(self.datastore.snapshot, self.datastore.match_subset),
            self.ledger,
            self.decisions,
            self.objectives,
        )
        self.gate = gate
        if gate is not None:
            stages = self.director.stages
            parts = (stages.parsers.parsers, stages.shedder, stages.scheduler, self.metrics)
            self.director.stages = Stages(*parts, flow=gate, prepare=stages.prepare)
        self._options: dict[str, Any] = {
            "max_body_bytes": max_body_bytes,
            "use_subset": use_subset,
            "observe_responses": observe_responses,
        }
        self.set(*pods)

    def set(self, *pods: P) -> None:
        """These pods and no others."""
        self.datastore.set_endpoints("test", [pod.endpoint for pod in pods])
        for pod in pods:
            self.datastore.report(pod.endpoint, pod.metrics)

    def _place(self, host_port: str) -> Place | None:
        state = self.datastore.find(host_port)
        return None if state is None else (state.endpoint, state.load)

    def conversation(self, deliver: Deliver = undelivered) -> Conversation:
        """A new stream."""
        return Conversation(self.director, deliver, now_s=self.now, **self._options)

    def load(self, address: str) -> EndpointLoad:
        """What is in flight there."""
        state = self.datastore.find(address)
        assert state is not None
        return state.load

    def told(self, address: str) -> tuple[int, float]:
        """Waiting requests and KV usage, as known of that pod."""
        state = self.datastore.find(address)
        assert state is not None
        return state.metrics.waiting, state.metrics.kv_usage

    def page(self) -> Page:
        """The metrics as a scrape would find them."""
        return Page(self.metrics.registry)

    def assert_idle(self) -> None:
        """Nothing is in flight, by the loads and by the gauges."""
        loads = {s.endpoint.host_port: (s.load.requests, s.load.tokens, s.load.unseen) for s in self.datastore.states()}
        assert set(loads.values()) <= {(0, 0, 0)}, loads
        page = self.page()
        for gauge in ("llm_d_epp_request_running", "llm_d_epp_inflight_requests", "llm_d_epp_inflight_tokens"):
            assert all(sample.value == 0 for sample in page.find(gauge)), page.find(gauge)

    def outcomes(self) -> dict[str, float]:
        """Requests by how they ended: `ok`, or their error code. Fails when a request ended twice, or not at all."""
        page = self.page()
        errors = {s.labels["error_code"]: s.value for s in page.find("llm_d_epp_request_error_total")}
        completed = page.value("llm_d_epp_request_total") - sum(errors.values())
        assert completed >= 0, errors
        return {name: count for name, count in {"ok": completed, **errors}.items() if count}
