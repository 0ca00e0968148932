"""The spans of requests (contract sections 7 and 10.2), as the picker writes them to its standard output."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from tests.conformance.setting import setting
from tests.conformance.test_hermetic import CLIENT, IDLE_SECOND, completion, finish_response
from tests.support.ext_proc import POST, request_body, request_headers, set_headers
from tests.support.waiting import until

TRACE, PARENT = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
CONSOLE = {"OTEL_TRACES_EXPORTER": "console", "OTEL_TRACES_SAMPLER": "always_on", "OTEL_BSP_SCHEDULE_DELAY": "50"}


def spans(output: str) -> dict[str, dict[str, Any]]:
    """By name, of what stands between log lines."""
    return {span["name"]: span for span in _objects(output) if "context" in span}


def _objects(output: str) -> Iterator[dict[str, Any]]:
    decoder, at = json.JSONDecoder(), 0
    while (at := output.find("{\n", at)) >= 0:
        try:
            found, at = decoder.raw_decode(output, at)
        except ValueError:  # not written to its end yet
            return
        yield found


async def test_a_request_is_a_span_with_its_stages_below_the_clients() -> None:
    async with setting(*IDLE_SECOND, environ=CONSOLE) as s, s.client.stream() as stream:
        traced = {"traceparent": f"00-{TRACE}-{PARENT}-01"}
        await stream.send(request_headers({**POST, **CLIENT, **traced}), request_body(completion("my-model")))
        headers, _ = await stream.expect(2)
        assert set_headers(headers)["traceparent"].startswith(f"00-{TRACE}-")
        assert PARENT not in set_headers(headers)["traceparent"]
        await finish_response(stream.send, stream.receive)

        async def written() -> bool:
            return "gateway.request" in spans(s.picker.stderr)

        await until(written, "the spans are written")
        found = spans(s.picker.stderr)
        parents = {
            "gateway.request_orchestration": "gateway.request",
            "run_scheduler_profile": "gateway.request_orchestration",
            "llm_d.epp.scoring": "run_scheduler_profile",
            "pick_endpoints": "run_scheduler_profile",
            "llm_d.epp.scorer.queue-scorer": "llm_d.epp.scoring",
        }
        for child, parent in parents.items():
            assert found[child]["parent_id"] == found[parent]["context"]["span_id"], child
        root = found["gateway.request"]
        assert (root["context"]["trace_id"], root["parent_id"]) == (f"0x{TRACE}", f"0x{PARENT}")
        assert set_headers(headers)["traceparent"] == f"00-{TRACE}-{root['context']['span_id'][2:]}-01"
        assert root["attributes"]["gen_ai.request.model"] == "my-model"
        assert root["attributes"]["gen_ai.request.id"] == "test-request-id"
        assert root["resource"]["attributes"]["service.name"] == "llm-d-epp"
        assert found["pick_endpoints"]["attributes"]["llm_d.epp.picker.top_endpoints"][0] == s.at(1)


async def test_a_refusal_is_a_span_with_an_error() -> None:
    async with setting(*IDLE_SECOND, environ=CONSOLE) as s:
        await s.client.converse(request_headers({**POST, **CLIENT}), request_body(b'{"prompt":"hello world"}'))

        async def written() -> bool:
            return "gateway.request" in spans(s.picker.stderr)

        await until(written, "the span is written")
        root = spans(s.picker.stderr)["gateway.request"]
        assert root["attributes"]["error.type"] == "BadRequest"
        assert root["status"] == {"status_code": "ERROR", "description": "model not found in request body"}
