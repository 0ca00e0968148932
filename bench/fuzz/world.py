"""A picker without sockets for fuzzed conversations, and what must be true of it when nobody talks to it."""

from __future__ import annotations

from picker.accounting.decisions import DecisionLog
from picker.config import default_source
from picker.datalayer.datastore import Datastore
from picker.director import Director, Pool
from picker.endpoint import Endpoint, EndpointMetrics
from picker.exchange import Ledger, Place
from picker.extproc.conversation import Conversation
from picker.extproc.events import Deliver, undelivered
from picker.extproc.h2.call import Methods
from picker.extproc.h2.ext_proc_call import ext_proc
from picker.loader import load
from picker.metrics import Metrics

ENDPOINTS = tuple(f"10.0.0.{i + 1}:8000" for i in range(3))
MAX_BODY_BYTES = 50_000


class World:
    """Three endpoints, the built-in configuration. The clock stands at `now_s`, which may be moved."""

    def __init__(self) -> None:
        self.now_s = 0.0
        self.metrics = Metrics(label_limit=50)
        self._datastore = Datastore(now=self._now)
        pipeline = load(default_source(), self.metrics)
        endpoints = [Endpoint(f"pod-{i}", *_split(address)) for i, address in enumerate(ENDPOINTS)]
        self._datastore.set_endpoints("fuzz", endpoints)
        for i, endpoint in enumerate(endpoints):
            self._datastore.report(endpoint, EndpointMetrics(i, i, i / 10, 16, 2_000, updated_s=0.0))
        self._director = Director(
            pipeline.stages,
            Pool(self._datastore.snapshot, self._datastore.match_subset),
            Ledger(self.metrics, self._place, self._now),
            DecisionLog(),
        )
        self.methods: Methods = ext_proc(self.conversation, self.metrics)

    def _now(self) -> float:
        return self.now_s

    def _place(self, host_port: str) -> Place | None:
        state = self._datastore.find(host_port)
        return None if state is None else (state.endpoint, state.load)

    def conversation(self, deliver: Deliver = undelivered) -> Conversation:
        """A new stream."""
        return Conversation(self._director, deliver, max_body_bytes=MAX_BODY_BYTES, use_subset=True, now_s=self.now_s)

    def busy(self) -> list[str]:
        """What counts as in flight; nothing may, once every stream has ended."""
        found = [f"{s.endpoint.host_port}: {s.load.requests}" for s in self._datastore.states() if s.load.requests or s.load.tokens]
        for gauge in (self.metrics.running, self.metrics.streams_inflight):
            found += [f"{gauge.name}{labels} {cell.value:g}" for labels, cell in gauge.cells.items() if cell.value]
        return found


def _split(address: str) -> tuple[str, int]:
    host, _, port = address.partition(":")
    return host, int(port)
