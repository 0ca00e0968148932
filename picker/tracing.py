"""OpenTelemetry spans of requests: `gateway.request` and what was decided within it (contract section 7).

A request is recorded or not when its headers are there (the sampler of `OTEL_TRACES_SAMPLER`). The spans themselves are made when it has
ended, from the decision record: a request in flight carries one span and no more. Nothing of this runs without an exporter.
"""

from __future__ import annotations

import os
import time
from collections.abc import Mapping, Sequence
from typing import Any

from opentelemetry import trace
from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import SERVICE_NAME, Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, ConsoleSpanExporter, SimpleSpanProcessor, SpanExporter
from opentelemetry.sdk.trace.sampling import ParentBased, Sampler, TraceIdRatioBased
from opentelemetry.trace import Span, StatusCode
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from picker.accounting.decisions import DecisionLog
from picker.director import Director, Pool
from picker.errors import ConfigError, Internal, Refusal
from picker.exchange import Exchange, Ledger
from picker.objectives import NO_OBJECTIVES, Objectives
from picker.request import InferenceRequest
from picker.result import Decision, Outcome, ProfileResult
from picker.stages import Stages
from picker.waiting import Resume, Waiting, unheard

SERVICE = "llm-d-epp"
DEFAULT_RATIO = "0.1"
TOP = 5
"""Endpoints named in a span, as in the reference."""

_W3C = TraceContextTextMapPropagator()


def exporter_from(environ: Mapping[str, str]) -> SpanExporter | None:
    """What `OTEL_TRACES_EXPORTER` and `OTEL_EXPORTER_OTLP_ENDPOINT` ask for; None: nothing. Raises ConfigError.

    The reference writes spans to its standard output when nothing is asked for; here that takes `OTEL_TRACES_EXPORTER=console`.
    """
    if environ.get("OTEL_SDK_DISABLED", "").lower() == "true":
        return None
    name = environ.get("OTEL_TRACES_EXPORTER", "")
    if not name:
        name = "otlp" if any(environ.get(f"OTEL_EXPORTER_OTLP_{kind}ENDPOINT") for kind in ("", "TRACES_")) else "none"
    if name == "otlp":
        secure = environ.get("OTEL_EXPORTER_OTLP_ENDPOINT", "").startswith("https")
        return OTLPSpanExporter(insecure=not secure)
    if name == "console":
        return ConsoleSpanExporter()
    if name == "none":
        return None
    raise ConfigError(f"OTEL_TRACES_EXPORTER={name}: expected otlp, console or none")


def sampler_from(environ: Mapping[str, str]) -> Sampler:
    """`parentbased_traceidratio` with 0.1 unless the environment says otherwise. Raises ConfigError."""
    name = environ.get("OTEL_TRACES_SAMPLER", "parentbased_traceidratio")
    text = environ.get("OTEL_TRACES_SAMPLER_ARG", DEFAULT_RATIO)
    try:
        ratio = float(text)
        if not 0 <= ratio <= 1:
            raise ValueError
    except ValueError:
        raise ConfigError(f"OTEL_TRACES_SAMPLER_ARG={text}: expected a number from 0 to 1") from None
    fixed = {"always_on": 1.0, "always_off": 0.0, "traceidratio": ratio}
    based = name.removeprefix("parentbased_")
    if based not in fixed:
        raise ConfigError(f"OTEL_TRACES_SAMPLER={name}: expected {', '.join(fixed)}, or one of them after parentbased_")
    root = TraceIdRatioBased(fixed[based])
    return root if based == name else ParentBased(root)


class Tracing:
    """Makes the spans. Times are wall-clock nanoseconds, as OpenTelemetry has them."""

    def __init__(self, exporter: SpanExporter, sampler: Sampler, *, at_once: bool = False) -> None:
        """`at_once`: spans are exported as they end, on the caller's thread (for tests and the console)."""
        name = os.environ.get("OTEL_SERVICE_NAME", SERVICE)
        self._provider = TracerProvider(sampler=sampler, resource=Resource.create({SERVICE_NAME: name}), shutdown_on_exit=False)
        self._provider.add_span_processor(SimpleSpanProcessor(exporter) if at_once else BatchSpanProcessor(exporter))
        self._tracer = self._provider.get_tracer("fairlead")

    @classmethod
    def from_environment(cls, environ: Mapping[str, str]) -> Tracing | None:
        """None when the environment names no exporter. Raises ConfigError."""
        exporter = exporter_from(environ)
        return None if exporter is None else cls(exporter, sampler_from(environ))

    def begin(self, headers: Mapping[str, str], age_s: float) -> Span:
        """The span of a request that began `age_s` ago. Its parent is what the headers name."""
        start = time.time_ns() - int(age_s * 1e9)
        return self._tracer.start_span("gateway.request", _W3C.extract(headers), kind=trace.SpanKind.SERVER, start_time=start)

    def carry(self, span: Span) -> Mapping[str, str]:
        """Headers that make the model server's spans children of this one, whether it is recorded or not."""
        carrier: dict[str, str] = {}
        _W3C.inject(carrier, trace.set_span_in_context(span))
        return carrier

    def refused(self, span: Span, code: str, message: str) -> None:
        """The request ended without a model server."""
        if span.is_recording():
            span.set_attribute("error.type", code)
            span.set_status(StatusCode.ERROR, message)
        span.end()

    def ended(self, span: Span, request: InferenceRequest, decision: Decision) -> None:
        """The exchange has settled."""
        if span.is_recording():
            span.set_attributes({
                "gen_ai.request.model": request.model,
                "gen_ai.request.id": request.request_id,
                "gen_ai.response.model": request.target_model,
                "llm_d.epp.request.priority": request.priority,
                "llm_d.epp.request.fairness_id": request.fairness_id,
            })  # fmt: skip
            self._decision(span, request, decision)
            if decision.outcome is not None:
                _outcome(span, decision.outcome)
        span.end()

    def _decision(self, parent: Span, request: InferenceRequest, decision: Decision) -> None:
        end = int(decision.time_unix_s * 1e9)
        start = end - int(decision.duration_s * 1e9)
        orchestration = self._child(parent, "gateway.request_orchestration", start, {
            "target_model": request.target_model, "request_prio": request.priority,
        })  # fmt: skip
        result = decision.result
        profile = self._child(orchestration, "run_scheduler_profile", start, {"llm_d.epp.profile": result.profile})
        if result.steps:
            left = [f"{step.name}: {len(step.endpoints)} -> {len(step.left)}" for step in result.steps]
            self._child(profile, "filter_endpoints", start, {"llm_d.epp.filter.steps": left}).end(end)
        if result.scorers:
            scoring = self._child(profile, "llm_d.epp.scoring", start, {"llm_d.epp.candidates": len(result.candidates)})
            for column in result.columns:
                best = max(column.scores, default=0.0)
                attributes = {"llm_d.epp.scorer.name": column.name, "llm_d.epp.scorer.weight": column.weight, "llm_d.epp.scorer.max": best}
                self._child(scoring, f"llm_d.epp.scorer.{column.type}", start, attributes).end(end)
            scoring.end(end)
        self._child(profile, "pick_endpoints", start, _top(result)).end(end)
        profile.end(end)
        orchestration.end(end)

    def _child(self, parent: Span, name: str, start: int, attributes: Mapping[str, Any]) -> Span:
        return self._tracer.start_span(name, trace.set_span_in_context(parent), attributes=attributes, start_time=start)

    def shutdown(self) -> None:
        """Send what is still here; blocks for a few seconds when nobody takes it."""
        self._provider.shutdown()


def _top(result: ProfileResult) -> dict[str, Any]:
    order = sorted(range(len(result.totals)), key=result.totals.__getitem__, reverse=True)
    best = [*result.picked, *[i for i in order if i not in result.picked]][:TOP]
    return {
        "llm_d.epp.picker.top_endpoints": [result.candidates[i].host_port for i in best],
        "llm_d.epp.picker.top_scores": [float(result.totals[i]) for i in best],
    }


def _outcome(span: Span, outcome: Outcome) -> None:
    known = {
        "llm_d.epp.endpoint.served": outcome.served,
        "http.response.status_code": outcome.status,
        "gen_ai.usage.input_tokens": outcome.prompt_tokens,
        "gen_ai.usage.output_tokens": outcome.completion_tokens,
        "llm_d.epp.cached_tokens": outcome.cached_tokens,
        "llm_d.epp.ttft_s": outcome.ttft_s,
        "llm_d.epp.cause": outcome.cause,
    }
    span.set_attributes({name: value for name, value in known.items() if value is not None})
    if outcome.cause != "completed":
        span.set_status(StatusCode.ERROR, outcome.cause or "")


class TracedDirector(Director):
    """A Director whose requests are followed. Without tracing there is a plain one: what is not traced costs nothing."""

    def __init__(
        self, tracing: Tracing, stages: Stages, pool: Pool, ledger: Ledger, decisions: DecisionLog, objectives: Objectives = NO_OBJECTIVES
    ) -> None:
        super().__init__(stages, pool, ledger, decisions, objectives)
        self._tracing = tracing

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
        """Like Director's, in a span that ends with the exchange."""
        tracing = self._tracing
        span = tracing.begin(headers, self.age_s(received_s))

        def resumed(outcome: Exchange | Refusal) -> None:
            if isinstance(outcome, Refusal):
                tracing.refused(span, outcome.code, outcome.message)
            else:
                self._follow(span, outcome)
            resume(outcome)

        try:
            outcome = super().handle(headers, body, subset, request_id=request_id, received_s=received_s, resume=resumed)
        except Refusal as refusal:
            tracing.refused(span, refusal.code, refusal.message)
            raise
        except Exception as error:
            tracing.refused(span, Internal.code, repr(error))
            raise
        if isinstance(outcome, Waiting):
            outcome.on_cancel = lambda: tracing.refused(span, "Disconnected", "client disconnected")
        else:
            self._follow(span, outcome)
        return outcome

    def _follow(self, span: Span, exchange: Exchange) -> None:
        request, decision = exchange.request, exchange.decision
        assert request is not None and decision is not None
        for name, value in self._tracing.carry(span).items():
            request.set_header(name, value)
        exchange.on_close(lambda _: self._tracing.ended(span, request, decision))
