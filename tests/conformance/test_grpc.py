"""The gRPC suite of the reference picker (contract section 10.2): vLLM's gRPC API through a real process, over both transports."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from tests.conformance.setting import Setting, setting
from tests.support.ext_proc import (
    request_body,
    request_headers,
    response_body,
    response_headers,
    response_trailers,
    set_headers,
    streamed,
)
from tests.support.model_server import Load
from tests.support.vllm_grpc import EMBED, GENERATE, chunk, complete, embed, embedding, frame, generate
from tests.support.waiting import until

DESTINATION = "x-gateway-destination-endpoint"
PODS = (Load(3, 0.2), Load(0, 0.1), Load(10, 0.2))
IDS = [1, 300, 70_000]
HEAD = {":status": "200", "content-type": "application/grpc"}


def head(path: str = GENERATE) -> dict[str, str]:
    return {":method": "POST", ":path": path, ":scheme": "http", "content-type": "application/grpc", "te": "trailers", "x-request-id": "id"}


def grpc_setting(*loads: Load):  # type: ignore[no-untyped-def]
    return setting(*loads, parser="vllmgrpc-parser")


async def finish(s: Setting, stream) -> None:  # type: ignore[no-untyped-def]
    await stream.send(response_headers({**HEAD, "grpc-status": "0"}, end=True))
    assert (await stream.receive()).response_headers is not None


CASES: list[tuple[str, str, bytes, Sequence[Load], int, Sequence[int] | None, int]] = [
    ("generate to the lower queue", GENERATE, generate(IDS), PODS, 1, None, 1),
    ("embed to the lower queue", EMBED, embed(IDS), PODS, 1, None, 1),
    ("streaming to the lower queue", GENERATE, generate(IDS, stream=True), PODS, 1, None, 1),
    ("text to the lower queue", GENERATE, generate(text="hello"), PODS, 1, None, 1),
    ("do not shed by default", GENERATE, generate(IDS), (Load(10, 0.9), Load(9, 0.9)), 1, None, 1),
    ("split body", GENERATE, generate(IDS), PODS, 1, None, 9),
    ("subset best", GENERATE, generate(IDS), PODS, 1, (0, 1, 2), 1),
    ("subset partial", GENERATE, generate(IDS), PODS, 2, (2,), 1),
]


@pytest.mark.parametrize("case", CASES, ids=[case[0] for case in CASES])
async def test_a_call_goes_to_the_right_pod_as_it_came(case: tuple) -> None:  # type: ignore[type-arg]
    _, path, body, pods, pod, hint, pieces = case
    async with grpc_setting(*pods) as s, s.client.stream() as stream:
        subset = None if hint is None else [s.at(i) for i in hint]
        await stream.send(request_headers(head(path)))
        size = -(-len(body) // pieces)
        for start in range(0, len(body), size):
            await stream.send(request_body(body[start : start + size], end=start + size >= len(body), subset=subset))
        headers, passed = await stream.expect(2)
        assert set_headers(headers)[DESTINATION] == s.at(pod)
        assert set_headers(headers)["content-length"] == str(len(body))
        assert streamed([passed]) == [(body, True)]
        await finish(s, stream)


REFUSED = [
    ("no pods", (), generate(IDS), None, 503, 14, b"ServiceUnavailable - failed to find endpoint candidates for serving the request"),
    ("subset none", PODS, generate(IDS), (7,), 503, 14, b"ServiceUnavailable - failed to find endpoint candidates for serving the request"),
    (
        "compressed",
        PODS,
        frame(b"x", 1),
        None,
        400,
        3,
        b"BadRequest - invalid generate request: compressed gRPC messages are not supported",
    ),
]


@pytest.mark.parametrize("case", REFUSED, ids=[case[0] for case in REFUSED])
async def test_a_refusal_says_so_in_grpc(case: tuple) -> None:  # type: ignore[type-arg]
    _, pods, body, hint, http, grpc, message = case
    async with grpc_setting(*pods) as s, s.client.stream() as stream:
        await stream.send(request_headers(head()))
        await stream.send(request_body(body, subset=None if hint is None else [s.at(i) for i in hint]))
        immediate = (await stream.receive()).immediate_response
        assert immediate is not None and immediate.status is not None and immediate.grpc_status is not None
        assert (int(immediate.status.code), immediate.grpc_status.status) == (http, grpc)
        assert immediate.body == b"inference error: " + message


ANSWERS = [
    ("usage", GENERATE, generate(IDS), [complete([5, 6], 7, 2)], 7, 2),
    ("usage in pieces", GENERATE, generate(IDS), [complete([5, 6], 7, 2)[:6], complete([5, 6], 7, 2)[6:]], 7, 2),
    ("streaming usage", GENERATE, generate(IDS, stream=True), [chunk([5], 7, 1), chunk([6], 7, 1), complete([6], 7, 1)], 7, 2),
    ("embedding usage", EMBED, embed(IDS), [embedding(8, 7)], 7, 0),
    ("invalid gRPC", GENERATE, generate(IDS), [b"no healthy upstream"], 0, 0),
]


@pytest.mark.parametrize("case", ANSWERS, ids=[case[0] for case in ANSWERS])
async def test_an_answer_passes_unchanged_and_trailers_end_it(case: tuple) -> None:  # type: ignore[type-arg]
    _, path, body, pieces, prompt, completion = case
    async with grpc_setting(*PODS) as s, s.client.stream() as stream:
        await stream.send(request_headers(head(path)), request_body(body))
        await stream.expect(2)
        await stream.send(response_headers(HEAD))
        await stream.expect(1)
        for piece in pieces:
            await stream.send(response_body(piece, end=False))
            assert streamed(await stream.expect(1)) == [(piece, False)]
        await stream.send(response_trailers({"grpc-status": "0"}))
        assert (await stream.receive()).response_trailers is not None

        async def idle() -> bool:
            return (await s.picker.metrics()).value("llm_d_epp_request_running") == 0

        await until(idle, "nothing is in flight")
        page = await s.picker.metrics()
        for name, tokens in (("input", prompt), ("output", completion)):
            assert sum(sample.value for sample in page.find(f"inference_objective_{name}_tokens_sum")) == tokens
