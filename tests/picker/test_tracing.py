"""Spans of requests, from the environment to what an exporter is handed."""

from __future__ import annotations

import pytest
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export import ConsoleSpanExporter
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF, ALWAYS_ON, ParentBased, Sampler

from picker.errors import ConfigError
from picker.exchange import Cause
from picker.extproc.events import HeadersReply, RequestBody, RequestHeaders, ResponseHeaders
from picker.tracing import TracedDirector, Tracing, exporter_from, sampler_from
from tests.picker.world import Gate, P, World, at

TRACE, PARENT = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
TRACEPARENT = f"00-{TRACE}-{PARENT}-01"
BODY = b'{"model":"m","prompt":"x"}'


class Traced:
    """A world whose requests are followed."""

    def __init__(self, *pods: P, sampler: Sampler = ALWAYS_ON, gate: Gate | None = None) -> None:
        self.world = World(*pods, gate=gate)
        self.exporter = InMemorySpanExporter()
        d = self.world.director
        self.world.director = TracedDirector(Tracing(self.exporter, sampler, at_once=True), d.stages, d._pool, d._ledger, d._decisions)
        self.said: list[object] = []
        self.conversation = self.world.conversation(self.said.extend)

    def ask(self, *headers: tuple[str, bytes]) -> list[object]:
        asking = [(":path", b"/v1/completions"), ("x-request-id", b"r"), *headers]
        self.conversation.receive(RequestHeaders(asking))
        return list(self.conversation.receive(RequestBody(BODY, True)))

    def spans(self) -> dict[str, ReadableSpan]:
        return {span.name: span for span in self.exporter.get_finished_spans()}


def test_a_request_is_a_tree_of_spans_below_the_clients() -> None:
    traced = Traced(P(0, 3), P(1, 0))
    headers = traced.ask(("traceparent", TRACEPARENT.encode()))[0]
    assert isinstance(headers, HeadersReply)
    assert traced.spans() == {}
    traced.conversation.receive(ResponseHeaders([(":status", b"200")], True))
    traced.conversation.end()
    spans = traced.spans()
    assert set(spans) == {
        "gateway.request", "gateway.request_orchestration", "run_scheduler_profile", "llm_d.epp.scoring", "pick_endpoints",
        "llm_d.epp.scorer.queue-scorer", "llm_d.epp.scorer.kv-cache-utilization-scorer", "llm_d.epp.scorer.prefix-cache-scorer",
        "llm_d.epp.scorer.lora-affinity-scorer",
    }  # fmt: skip
    root = spans["gateway.request"]
    assert root.parent is not None and f"{root.parent.span_id:016x}" == PARENT and f"{root.context.trace_id:032x}" == TRACE
    parents = {"gateway.request_orchestration": "gateway.request", "run_scheduler_profile": "gateway.request_orchestration"}
    parents |= {"pick_endpoints": "run_scheduler_profile", "llm_d.epp.scoring": "run_scheduler_profile"}
    for child, parent in parents.items():
        assert spans[child].parent == spans[parent].context
    assert root.attributes is not None and root.attributes["gen_ai.request.model"] == "m" and root.attributes["gen_ai.request.id"] == "r"
    assert root.attributes["llm_d.epp.endpoint.served"] == at(1) and root.attributes["http.response.status_code"] == 200
    picked = spans["pick_endpoints"].attributes
    assert picked is not None and picked["llm_d.epp.picker.top_endpoints"] == (at(1), at(0))
    # The model server's spans go below ours.
    assert dict(headers.change.set_headers)["traceparent"] == f"00-{TRACE}-{root.context.span_id:016x}-01".encode()


def test_what_is_not_sampled_is_passed_on_as_that_and_not_exported() -> None:
    traced = Traced(P(0), sampler=ParentBased(ALWAYS_OFF))
    headers = traced.ask(("traceparent", f"00-{TRACE}-{PARENT}-00".encode()))[0]
    assert isinstance(headers, HeadersReply)
    assert dict(headers.change.set_headers)["traceparent"].startswith(f"00-{TRACE}-".encode())
    assert dict(headers.change.set_headers)["traceparent"].endswith(b"-00")
    traced.conversation.end()
    assert traced.spans() == {}


def test_a_refusal_is_a_span_with_an_error() -> None:
    traced = Traced()
    traced.ask()
    traced.conversation.end()
    (span,) = traced.spans().values()
    assert span.name == "gateway.request" and not span.status.is_ok
    assert span.attributes is not None and span.attributes["error.type"] == "ServiceUnavailable"


@pytest.mark.parametrize("turn", [True, False])
def test_a_request_that_waited_is_followed_too(turn: bool) -> None:
    gate = Gate()
    traced = Traced(P(0), gate=gate)
    assert traced.ask() == []
    if turn:
        gate.queue[0](None)
        assert isinstance(traced.said[0], HeadersReply)
    traced.conversation.end()
    root = traced.spans()["gateway.request"]
    assert root.attributes is not None
    assert root.attributes.get("error.type") == (None if turn else "Disconnected")
    assert root.attributes.get("llm_d.epp.cause") == ("disconnected" if turn else None)
    traced.world.assert_idle()


def test_an_exchange_that_fails_says_so() -> None:
    traced = Traced(P(0))
    exchange = traced.world.director.handle({}, BODY, None, request_id="r", received_s=traced.world.now)
    exchange.close(Cause.FAILED)  # type: ignore[union-attr]
    assert traced.spans()["gateway.request"].status.description == "failed"


def test_the_environment_chooses_exporter_and_sampler() -> None:
    assert exporter_from({}) is None
    assert exporter_from({"OTEL_TRACES_EXPORTER": "none", "OTEL_EXPORTER_OTLP_ENDPOINT": "http://x"}) is None
    assert exporter_from({"OTEL_TRACES_EXPORTER": "console", "OTEL_SDK_DISABLED": "true"}) is None
    assert isinstance(exporter_from({"OTEL_TRACES_EXPORTER": "console"}), ConsoleSpanExporter)
    assert type(exporter_from({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:4317"})).__name__ == "OTLPSpanExporter"
    assert "ParentBased" in sampler_from({}).get_description() and "0.1" in sampler_from({}).get_description()
    assert sampler_from({"OTEL_TRACES_SAMPLER": "always_on"}).get_description() == "TraceIdRatioBased{1.0}"
    for wrong in ({"OTEL_TRACES_SAMPLER": "sometimes"}, {"OTEL_TRACES_SAMPLER_ARG": "2"}):
        with pytest.raises(ConfigError, match="expected"):
            sampler_from(wrong)
    with pytest.raises(ConfigError, match="expected otlp, console or none"):
        exporter_from({"OTEL_TRACES_EXPORTER": "zipkin"})
