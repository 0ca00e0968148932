"""The stages of a request, in order, and nothing else: parse, admit, locate candidates, produce data, schedule.

Nearly every request is decided at once, without a pause. One that has to wait, in a queue of flow control or for a producer that asks
somebody else, comes back as `Waiting`.
"""

from __future__ import annotations

import logging
import random
import time
from collections.abc import Callable, Mapping, Sequence
from uuid import UUID

from picker.accounting.decisions import DecisionLog
from picker.endpoint import Endpoint
from picker.errors import REJECTED_CANCELLED, REJECTED_NO_ENDPOINTS, BadRequest, Internal, Refusal, Unavailable
from picker.exchange import Exchange, Ledger
from picker.keys import DEFAULT_FAIRNESS_ID, FAIRNESS_ID
from picker.metrics import Metrics
from picker.objectives import NO_OBJECTIVES, Objectives
from picker.parsing.paths import request_path
from picker.request import InferenceRequest, ParsedBody
from picker.result import Decision
from picker.snapshot import Candidates, Snapshot
from picker.stages import Stages
from picker.waiting import Resume, Waiting, unheard

log = logging.getLogger(__name__)

# Control headers: new name, then its deprecated alias; the new one wins (contract section 1.6).
OBJECTIVE = ("x-llm-d-inference-objective", "x-gateway-inference-objective")
MODEL_REWRITE = ("x-llm-d-model-name-rewrite", "x-gateway-model-name-rewrite")
_RECORDED_CHARS = 256
"""Of a model's name in decision records: the name may be as long as the body."""


class Pool:
    """What the director asks of the datalayer: `snapshot()` of live endpoints, and `subset(snapshot, hints)`."""

    def __init__(self, snapshot: Callable[[], Snapshot], subset: Callable[[Snapshot, Sequence[str]], Candidates]) -> None:
        self.snapshot = snapshot
        self.subset = subset


class Director:
    """Synchronous: between the first stage and the last no other request runs, so what one decision takes the next one sees."""

    def __init__(self, stages: Stages, pool: Pool, ledger: Ledger, decisions: DecisionLog, objectives: Objectives = NO_OBJECTIVES) -> None:
        self.stages = stages
        self._objectives = objectives
        self._pool = pool
        self._ledger = ledger
        self._decisions = decisions
        self._attempts = ledger.metrics.scheduler_attempts
        self._processing = ledger.metrics.request_processing.cell()
        self._random = random.Random()

    def handle(
        self,
        headers: Mapping[str, str],
        body: bytes,
        subset: Sequence[str] | None,
        *,
        request_id: str,
        received_s: float,
        resume: Resume = unheard,
    ) -> Exchange | Waiting:
        """Decide where a complete request goes. Raises a Refusal, or whatever a plugin raises; both are counted here.

        A request that has to wait is `resume`d later, with its exchange or its Refusal.
        """
        started = time.perf_counter()
        stages = self.stages
        model = ""
        request: InferenceRequest | None = None
        try:
            path = request_path(headers)
            parsed = self._parse(path, headers, body)
            model = parsed.model or ""
            target = model
            if parsed.model_rewritable:
                target = self._objectives.target(model) or (first(headers, MODEL_REWRITE) or model if model else "")
            if not target and parsed.model_required:
                raise BadRequest("model not found in request body")
            request = InferenceRequest(
                request_id=request_id,
                path=path,
                headers=headers,
                body=parsed,
                model=model,
                target_model=target,
                objective=(objective := first(headers, OBJECTIVE)),
                priority=self._objectives.priority(objective) if objective else 0,
                fairness_id=first(headers, FAIRNESS_ID) or DEFAULT_FAIRNESS_ID,
                size_bytes=len(body),
                received_s=received_s,
                payload=body if stages.prepare is not None else b"",
            )
            for processor, timer in stages.request_header:
                began = time.perf_counter()
                try:
                    processor.request_header(request)
                finally:
                    timer.observe(time.perf_counter() - began)
            if stages.at_once:
                snapshot = self._pool.snapshot()
                stages.shedder.shed(request, snapshot, self._ledger.now())
                exchange: Exchange | Waiting = self._route(request, snapshot, subset)
            else:
                exchange = Waiting(self, request, subset, resume).begin()
        except Refusal as refusal:
            self._count_refusal(headers, model, refusal, request)
            raise
        except Exception as error:
            # A fault in some plugin: nothing is open yet, but the request was there.
            self._count_refusal(headers, model, Internal(repr(error)), request)
            raise
        self._processing.observe(time.perf_counter() - started)
        return exchange

    def route(self, request: InferenceRequest, subset: Sequence[str] | None) -> Exchange:
        """For a request that has waited: what is left to do. Raises a Refusal, not counted yet."""
        started = time.perf_counter()
        exchange = self._route(request, self._pool.snapshot(), subset)
        if (flow := self.stages.flow) is not None:
            flow.opened(exchange)
        self._processing.observe(time.perf_counter() - started)
        return exchange

    def left(self, request: InferenceRequest) -> None:
        """Count a request whose client has gone before it was decided."""
        self.count_refusal(request, Unavailable("client disconnected", drop_reason=REJECTED_CANCELLED))

    def count_refusal(self, request: InferenceRequest, refusal: Refusal) -> None:
        """Of a request that has waited."""
        self._count_refusal(request.headers, request.model, refusal, request)

    def any_endpoint(self, subset: Sequence[str] | None) -> Endpoint:
        """For requests without a body: any live endpoint, at random; nothing is parsed, scheduled or counted.

        Raises Internal when there are no endpoints, Unavailable when the subset leaves none.
        """
        snapshot = self._pool.snapshot()
        if not len(snapshot):
            raise Internal("no pods available in datastore")
        return self._random.choice(self._candidates(snapshot, subset).endpoints)

    def response_only(self) -> Exchange:
        """An exchange for a stream that carries only a response: usage is counted, under empty labels."""
        return Exchange(self._ledger, self._ledger.metrics.series("", "", "", "0"), None, None, None)

    def refuse(self, headers: Mapping[str, str], refusal: Refusal) -> None:
        """Count a refusal that was decided before the stages ran."""
        self._count_refusal(headers, "", refusal)

    def age_s(self, received_s: float) -> float:
        """How long ago that was."""
        return self._ledger.now() - received_s

    def new_request_id(self) -> str:
        """A random UUID (version 4). From a PRNG seeded by the system: an id to find a request by, not a secret."""
        return str(UUID(int=self._random.getrandbits(128), version=4))

    def _parse(self, path: str, headers: Mapping[str, str], body: bytes) -> ParsedBody:
        parser = self.stages.parsers.find(path)
        if parser is None:
            raise BadRequest(f"no parser is configured for path '{path}'")
        return parser.parse(path, headers, body)

    def _candidates(self, snapshot: Snapshot, subset: Sequence[str] | None) -> Candidates:
        candidates = snapshot.candidates() if subset is None else self._pool.subset(snapshot, subset)
        if not len(candidates):
            raise Unavailable("failed to find endpoint candidates for serving the request", drop_reason=REJECTED_NO_ENDPOINTS)
        return candidates

    def _route(self, request: InferenceRequest, snapshot: Snapshot, subset: Sequence[str] | None) -> Exchange:
        stages = self.stages
        candidates = self._candidates(snapshot, subset)
        for screener, timer in stages.screeners:
            began = time.perf_counter()
            try:
                candidates = screener.screen(request, candidates)
            finally:
                timer.observe(time.perf_counter() - began)
            if not len(candidates):
                raise Unavailable("screeners eliminated all endpoint candidates")
        for producer, timer in stages.producers:
            began = time.perf_counter()
            try:
                producer.produce(request, candidates)
            except Exception:
                log.exception("request %s goes on without data: %s failed", request.request_id, getattr(producer, "name", producer))
            timer.observe(time.perf_counter() - began)
        if stages.admitters:
            now_s = self._ledger.now()
            for admitter, timer in stages.admitters:
                began = time.perf_counter()
                try:
                    admitter.admit(request, candidates, now_s)
                finally:
                    timer.observe(time.perf_counter() - began)
        return self._schedule(request, snapshot, candidates)

    def _schedule(self, request: InferenceRequest, snapshot: Snapshot, candidates: Candidates) -> Exchange:
        metrics = self._ledger.metrics
        target = metrics.cap_model(request.target_model)
        started = time.perf_counter()
        try:
            result = self.stages.scheduler.schedule(request, candidates)
        except Exception:
            self._attempts.cell("failure", target, "", "", "").value += 1
            raise
        duration_s = time.perf_counter() - started
        model, target_model = request.model[:_RECORDED_CHARS], request.target_model[:_RECORDED_CHARS]
        decision = Decision(request.request_id, request.path, model, target_model, time.time(), duration_s, result)
        best = result.picked[0]
        position, endpoint = result.positions[best], result.candidates[best]
        self._attempts.cell("success", target, endpoint.name, endpoint.namespace, str(endpoint.port)).value += 1
        if self.stages.conditional is not None:
            self.stages.conditional.check(request, snapshot, position)
        for hook, timer in self.stages.pre_request:
            began = time.perf_counter()
            hook.pre_request(request, snapshot, position)
            timer.observe(time.perf_counter() - began)
        # The exchange keeps the request while the answer streams. A million tokens are 4 MB; matches of 1,000 endpoints are 40 KB.
        request.body.prompt.forget()
        request.working.clear()
        self._decisions.add(decision)
        series = metrics.series(request.model, request.target_model, request.fairness_id, str(request.priority))
        return Exchange(
            self._ledger,
            series,
            request,
            decision,
            (endpoint, snapshot.loads[position]),
            reports_load=snapshot.metrics[position].reports_load,
            plugins=self.stages.response,
        )

    def _count_refusal(self, headers: Mapping[str, str], model: str, refusal: Refusal, request: InferenceRequest | None = None) -> None:
        metrics: Metrics = self._ledger.metrics
        if request is not None:
            labels = (request.target_model, request.fairness_id, str(request.priority))
        else:
            labels = ((first(headers, MODEL_REWRITE) or model) if model else "", first(headers, FAIRNESS_ID) or DEFAULT_FAIRNESS_ID, "0")
        series = metrics.series(model, *labels)
        series.total.value += 1
        series.error(refusal.code)


def first(headers: Mapping[str, str], names: Sequence[str]) -> str:
    """The value of the first of `names` that is present and not empty; '' when none is."""
    for name in names:
        value = headers.get(name)
        if value:
            return value
    return ""
