"""The hermetic tests of the reference picker (contract section 10.2): a real process between scraped pods and a proxy's messages."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import grpc
import pytest
from envoy_data_plane.envoy.service.ext_proc.v3 import ProcessingRequest, ProcessingResponse

from tests.conformance.setting import Setting, setting
from tests.support.ext_proc import (
    POST,
    dynamic_metadata,
    mutation,
    removed_headers,
    request_body,
    request_headers,
    response_body,
    response_headers,
    response_trailers,
    set_headers,
    streamed,
)
from tests.support.model_server import Load
from tests.support.waiting import until

DESTINATION = "x-gateway-destination-endpoint"
CLIENT = {"hi": "mom", "x-request-id": "test-request-id"}
LORA = "sql-lora-1fdg2"


def completion(model: str, prompt: str = "test") -> bytes:
    """As the reference sends and expects it: keys sorted."""
    return f'{{"max_tokens":100,"model":"{model}","prompt":"{prompt}","temperature":0}}'.encode()


@dataclass(frozen=True)
class Routes:
    """A request, and the pod that must get it. `hint` are pods by index."""

    name: str
    pods: Sequence[Load]
    pod: int
    model: str = "my-model"
    target: str | None = None
    pieces: Sequence[bytes] = ()
    hint: Sequence[int] | None = None
    headers: dict[str, str] = field(default_factory=dict)
    parser: str = "openai-parser"
    sent: bytes | None = None
    objectives: str = ""


REWRITES = """\
apiVersion: llm-d.ai/v1alpha2
kind: InferenceModelRewrite
metadata: {name: rewrite}
spec:
  poolRef: {name: default}
  rules:
  - matches:
    - model: {type: Exact, value: model-to-be-rewritten}
    targets:
    - modelRewrite: rewritten-model
---
apiVersion: inference.networking.x-k8s.io/v1alpha2
kind: InferenceObjective
metadata: {name: critical}
spec: {priority: 2}
"""

IDLE_SECOND = (Load(3, 0.2), Load(0, 0.1), Load(10, 0.2))
SPLIT = completion("my-model")
CASES = [
    Routes("select lower queue and kv cache", IDLE_SECOND, 1),
    Routes("select active lora, low queue", (Load(0, 0.2, ["foo"]), Load(0, 0.1, [LORA]), Load(10, 0.2, ["foo"])), 1, model=LORA),
    Routes("lora affinity despite higher kv cache", (Load(10, 0.2), Load(10, 0.4, [LORA]), Load(10, 0.3)), 1, model=LORA),
    Routes("do not shed by default", (Load(6, 0.2, ["foo", LORA]), Load(0, 0.85, ["foo"]), Load(10, 0.9, ["foo"])), 0, model=LORA),
    Routes("passthrough parser", IDLE_SECOND, 1, model="", sent=b"passthrough-parser", parser="passthrough-parser"),
    Routes(
        "split body, objective and rewrite headers",
        (Load(4, 0.2, [LORA]), Load(4, 0.85, [LORA])),
        0,
        target=LORA,
        pieces=(SPLIT[:30], SPLIT[30:]),
        headers={"x-gateway-inference-objective": "critical", "x-gateway-model-name-rewrite": LORA},
    ),
    Routes("subset best", (Load(0, 0.2), Load(0, 0.1, [LORA]), Load(10, 0.2)), 1, model=LORA, hint=(0, 1, 2)),
    Routes("subset partial", (Load(0, 0.2), Load(0, 0.1, [LORA]), Load(10, 0.2)), 2, model=LORA, hint=(2,)),
    Routes("model not in objectives", IDLE_SECOND, 1, model="direct-model"),
    Routes("rewrite model (CRD)", IDLE_SECOND, 1, model="model-to-be-rewritten", target="rewritten-model", objectives=REWRITES),
]


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
async def test_a_request_goes_to_the_right_pod(case: Routes, tmp_path: Path) -> None:
    target = case.target or case.model
    sent = case.sent or completion(case.model)
    expected = case.sent or completion(target)
    flags: list[str] = []
    if case.objectives:
        (tmp_path / "objectives.yaml").write_text(case.objectives)
        flags = ["--objectives-file", str(tmp_path / "objectives.yaml")]
    async with setting(*case.pods, parser=case.parser, flags=flags) as s, s.client.stream() as stream:
        hint = None if case.hint is None else [s.at(i) for i in case.hint]
        await stream.send(request_headers({**POST, **CLIENT, **case.headers}))
        pieces = case.pieces or (sent,)
        for number, piece in enumerate(pieces, 1):
            await stream.send(request_body(piece, end=number == len(pieces), subset=hint))
        headers, body = await stream.expect(2)

        assert set_headers(headers) == {**POST, **CLIENT, DESTINATION: s.at(case.pod), "content-length": str(len(expected))}
        assert [option.header.key for option in mutation(headers).set_headers if option.header][:2] == [DESTINATION, "Content-Length"]
        assert removed_headers(headers) == case.headers.keys()
        assert dynamic_metadata(headers) == {"envoy.lb": {DESTINATION: s.at(case.pod)}}
        assert headers.request_headers and headers.request_headers.response and headers.request_headers.response.clear_route_cache
        assert streamed([body]) == [(expected, True)]

        page = await s.picker.metrics()
        assert page.value("inference_objective_request_total") == 1
        labels = {"model_name": case.model, "target_model_name": target}
        assert page.value("inference_objective_request_total", priority="0", **labels) == 1
        assert page.value("llm_d_epp_request_total", fairness_id="default-flow", priority="0", **labels) == 1
        assert page.value("inference_pool_ready_pods") == page.value("llm_d_epp_ready_endpoints") == len(case.pods)
        assert page.value("inference_pool_average_queue_size") == pytest.approx(sum(p.queue for p in case.pods) / len(case.pods))
        assert page.value("llm_d_epp_request_running") == page.value("llm_d_epp_inflight_requests") == 1
        await finish_response(stream.send, stream.receive)
        await ends_idle(s)


async def finish_response(send, receive) -> None:  # type: ignore[no-untyped-def]
    """An empty answer of the model server."""
    await send(response_headers({":status": "200"}, end=True))
    assert (await receive()).response_headers is not None


async def ends_idle(s: Setting) -> None:
    """Nothing is in flight any more."""

    async def idle() -> bool:
        page = await s.picker.metrics()
        loads = [entry["in_flight_requests"] for entry in (await s.picker.endpoints()).values()]
        return not any(loads) and page.value("llm_d_epp_request_running") == page.value("llm_d_epp_inflight_requests") == 0

    await until(idle, "nothing is in flight")


def refusal(replies: list[ProcessingResponse]) -> tuple[int, bytes, dict[str, str]]:
    """Status, body and headers of the immediate response, which must be all that was said."""
    (reply,) = replies
    immediate = reply.immediate_response
    assert immediate is not None and immediate.status is not None
    return int(immediate.status.code), immediate.body, set_headers(reply)


UNREADABLE = b"error unmarshaling request bodyMap: invalid character 'o' in literal null (expecting 'u')"
NO_CANDIDATES = b"failed to find endpoint candidates for serving the request"
REFUSED = {
    "invalid JSON": (b"no healthy upstream", None, 400, b"BadRequest - " + UNREADABLE, {}),
    "missing model": (b'{"prompt":"hello world"}', None, 400, b"BadRequest - model not found in request body", {}),
    "subset none": (
        completion("my-model"),
        [98],
        503,
        b"ServiceUnavailable - " + NO_CANDIDATES,
        {"x-llm-d-request-dropped-reason": "rejected-no-endpoints"},
    ),
    "subset empty": (
        completion("my-model"),
        [],
        503,
        b"ServiceUnavailable - " + NO_CANDIDATES,
        {"x-llm-d-request-dropped-reason": "rejected-no-endpoints"},
    ),
}


@pytest.mark.parametrize("name", REFUSED)
async def test_a_request_is_refused(name: str) -> None:
    body, hint, status, text, headers = REFUSED[name]
    async with setting(*IDLE_SECOND) as s, s.client.stream() as stream:
        subset = None if hint is None else [s.at(i) for i in hint]
        await stream.send(request_headers({**POST, **CLIENT}, subset=subset), request_body(body))
        # The picker ends the stream itself.
        assert refusal(await stream.rest()) == (status, b"inference error: " + text, headers)
        assert await stream.code() is grpc.StatusCode.OK
        page = await s.picker.metrics()
        code = text.split(b" ")[0].decode()
        assert page.value("llm_d_epp_request_error_total", error_code=code) == page.value("llm_d_epp_request_total") == 1


async def test_no_backend_pods() -> None:
    async with setting() as s:
        replies = await s.client.converse(request_headers({**POST, **CLIENT}, end=True))
        assert refusal(replies) == (500, b"inference error: Internal - no pods available in datastore", {})
        assert (await s.picker.metrics()).value("llm_d_epp_request_total") == 0


async def test_get_header_only() -> None:
    async with setting(Load(0, 0.0)) as s:
        (reply,) = await s.client.converse(request_headers({":method": "GET", ":path": "/v1/models", **CLIENT}, end=True))
        assert set_headers(reply) == {DESTINATION: s.at(0)}
        assert dynamic_metadata(reply) == {"envoy.lb": {DESTINATION: s.at(0)}}
        assert (await s.picker.metrics()).value("llm_d_epp_request_total") == 0


# ---- streams that carry only a response ----------------------------------------------------------------------------------------

JSON_USAGE = b'{"id":"x","usage":{"prompt_tokens":7,"total_tokens":17,"completion_tokens":10}}'
EVENT_USAGE = b'data: {"usage":{"prompt_tokens":7,"total_tokens":17,"completion_tokens":10}}\ndata: [DONE]'
INVALID = b"no healthy upstream"


@dataclass(frozen=True)
class Passes:
    """A response, and what becomes of it. `tokens` is the (sum, count) of the input token histogram."""

    name: str
    content_type: str
    heard: Sequence[ProcessingRequest]
    said: Sequence[tuple[bytes, bool]]
    tokens: tuple[int, int] = (0, 0)


RESPONSES = [
    Passes(
        "response multi-chunk JSON",
        "application/json",
        [response_body(JSON_USAGE[:20], end=False), response_body(JSON_USAGE[20:])],
        [(JSON_USAGE, True)],
        (7, 1),
    ),
    Passes("response invalid JSON", "application/json", [response_body(INVALID)], [(INVALID, True)]),
    Passes(
        "response empty EOS chunk",
        "application/json",
        [response_body(JSON_USAGE, end=False), response_body(b"")],
        [(JSON_USAGE, True)],
        (7, 1),
    ),
    Passes(
        "SSE token counting",
        "text/event-stream",
        [response_body(b"data: {}", end=False), response_body(EVENT_USAGE, end=False), response_body(b"")],
        [(b"data: {}", False), (EVENT_USAGE, False), (b"", True)],
        (7, 1),
    ),
    Passes(
        "response ended by trailers",
        "text/event-stream",
        [response_body(EVENT_USAGE + b"\n\n", end=False), response_trailers()],
        [(EVENT_USAGE + b"\n\n", False)],
        (7, 1),
    ),
]


@pytest.mark.parametrize("case", RESPONSES, ids=lambda case: case.name)
async def test_a_response_passes(case: Passes) -> None:
    headers = {":status": "200", "content-type": case.content_type, "x-test": "y"}
    async with setting(Load(0, 0.0)) as s:
        first, *replies = await s.client.converse(response_headers(headers), *case.heard)
        assert set_headers(first) == {"x-went-into-resp-headers": "true", **headers}
        assert streamed(replies) == list(case.said)
        assert (replies[-1].response_trailers is not None) == (case.heard[-1].response_trailers is not None)
        page = await s.picker.metrics()
        for name in ("inference_objective_input_tokens", "llm_d_epp_request_input_tokens"):
            assert (page.value(f"{name}_sum", model_name=""), page.value(f"{name}_count", model_name="")) == case.tokens


# ---- a whole exchange ------------------------------------------------------------------------------------------------------------


async def test_a_request_and_its_response_on_one_stream() -> None:
    async with setting(*IDLE_SECOND) as s, s.client.stream() as stream:
        rewrite = {"x-llm-d-model-name-rewrite": "target", "x-llm-d-inference-fairness-id": "team"}
        await stream.send(request_headers({**POST, **CLIENT, **rewrite}), request_body(completion("asked")))
        headers, body = await stream.expect(2)
        assert set_headers(headers)[DESTINATION] == s.at(1)
        assert removed_headers(headers) == rewrite.keys()
        assert streamed([body]) == [(completion("target"), True)]
        # The proxy fell back to another pod.
        await stream.send(response_headers({":status": "200", "content-type": "text/event-stream"}, served=s.at(2)))
        await stream.expect(1)
        assert {a: e["in_flight_requests"] for a, e in (await s.picker.endpoints()).items()} == {s.at(0): 0, s.at(1): 0, s.at(2): 1}
        await stream.send(response_body(b'data: {"model":"tar', end=False), response_body(b'get"}\n\n' + EVENT_USAGE, end=True))
        assert b"".join([part for part, _ in streamed(await stream.expect(2))]) == b'data: {"model":"asked"}\n\n' + EVENT_USAGE
        await stream.half_close()
        assert await stream.rest() == []
        labels = {"model_name": "asked", "target_model_name": "target", "fairness_id": "team"}
        page = await s.picker.metrics()
        assert page.value("llm_d_epp_request_input_tokens_sum", **labels) == 7
        assert page.value("llm_d_epp_request_duration_seconds_count", **labels) == 1
        assert page.value("llm_d_epp_request_error_total") == 0
        for name in ("request_processing_duration_seconds", "response_processing_duration_seconds", "extproc_stream_duration_seconds"):
            assert page.value(f"llm_d_epp_{name}_count") == 1, name
        (record,) = (await s.picker.get("/debug/decisions?request_id=test-request-id"))["decisions"]
        assert (record["picked"], record["served"], record["cause"]) == ([s.at(1)], s.at(2), "completed")
        await ends_idle(s)


async def test_objectives_are_read_again_and_a_bad_file_changes_nothing(tmp_path: Path) -> None:
    file = tmp_path / "objectives.yaml"
    file.write_text(REWRITES)
    async with setting(*IDLE_SECOND, flags=["--objectives-file", str(file)]) as s:

        async def told() -> dict[str, Any]:
            return dict((await s.picker.get("/readyz"))["sources"]["objectives-file"])

        async def asked() -> tuple[bytes, bool]:
            async with s.client.stream() as stream:
                headers = {**POST, **CLIENT, "x-llm-d-inference-objective": "critical"}
                await stream.send(request_headers(headers), request_body(completion("model-to-be-rewritten")))
                _, body = await stream.expect(2)
                await finish_response(stream.send, stream.receive)
            return streamed([body])[0]

        async def refused() -> bool:
            return (await told())["last_error"] is not None

        async def reloaded() -> bool:
            return (await told())["rewrites"] == 0

        assert ((await told())["objectives"], (await told())["rewrites"], (await told())["skipped"]) == (1, 1, 0)
        write(file, REWRITES.replace("priority: 2", "priority: high"))
        await until(refused, "the bad file is refused")
        assert "spec.priority" in (await told())["last_error"]
        assert await asked() == (completion("rewritten-model"), True)
        page = await s.picker.metrics()
        assert page.value("fairlead_reload_errors_total", source="objectives-file") == 1
        assert page.value("llm_d_epp_request_total", priority="2", target_model_name="rewritten-model") == 1
        labels = {"model_rewrite_name": "rewrite", "model_name": "model-to-be-rewritten", "target_model": "rewritten-model"}
        assert page.value("llm_d_epp_model_rewrite_decisions_total", **labels) == 1
        write(file, "")
        await until(reloaded, "the file is read again")
        assert await asked() == (completion("model-to-be-rewritten"), True)
        page = await s.picker.metrics()
        assert page.value("llm_d_epp_request_total", priority="0", target_model_name="model-to-be-rewritten") == 1
        await ends_idle(s)


def write(file: Path, text: str) -> None:
    """In one step, as editors and ConfigMaps do."""
    new = file.with_suffix(".new")
    new.write_text(text)
    new.replace(file)


async def test_a_proxy_that_leaves_in_the_middle_leaves_nothing_behind() -> None:
    async with setting(*IDLE_SECOND) as s:
        for events in (1, 2, 3, 4):
            async with s.client.stream() as stream:
                messages = [
                    request_headers({**POST, **CLIENT}),
                    request_body(completion("m", str(events))),
                    response_headers({":status": "200", "content-type": "text/event-stream"}),
                    response_body(b"data: {}\n\n", end=False),
                ]
                await stream.send(*messages[:events])
                await stream.expect((0, 0, 2, 3, 4)[events])
                stream.cancel()
        await ends_idle(s)

        async def counted() -> bool:
            page = await s.picker.metrics()
            return page.value("llm_d_epp_request_error_total", error_code="Disconnected") == 3

        await until(counted, "three requests are counted as disconnected")
        page = await s.picker.metrics()
        assert page.value("llm_d_epp_request_total") == 3
        assert page.value("llm_d_epp_extproc_streams_inflight") == 0
        assert page.value("llm_d_epp_extproc_streams_total") == 4
        # Now and then grpcio tells a cancelled stream from a finished one too late.
        assert page.value("llm_d_epp_extproc_streams_total", code="Canceled") >= 1
