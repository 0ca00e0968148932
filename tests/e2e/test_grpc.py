"""vLLM's gRPC API: a client and model servers by grpcio, the real Envoy and the picker between them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from dataclasses import dataclass

import grpc
import pytest

from tests.e2e.conftest import TRANSPORTS, StartStack
from tests.e2e.grpc_engine import MODEL_INFO, PROMPT_TOKENS, SERVED_BY, SERVICE, Failure, GrpcEngine, bare
from tests.e2e.requests import request_id
from tests.support.envoy_stack import EnvoyStack, consecutive_ports, wait_for
from tests.support.model_server import FakeModelServer, Load, model_servers
from tests.support.prometheus import metrics
from tests.support.vllm_grpc import EMBED, GENERATE, chunk, complete, embed, embedding, generate

# gRPC servers answer no scrape: their metrics page is on a port of its own.
CONFIG = """\
apiVersion: llm-d.ai/v1alpha1
kind: EndpointPickerConfig
plugins:
- type: queue-scorer
- type: vllmgrpc-parser
- type: metrics-data-source
  parameters: {{port: {port}}}
schedulingProfiles:
- name: default
  plugins:
  - pluginRef: queue-scorer
requestHandler:
  parsers:
  - pluginRef: vllmgrpc-parser
"""
IDS = [1, 300, 70_000]
QUEUES = (3, 0, 10)
BEST = 1
"""The server with the shortest queue."""

Call = grpc.aio.UnaryStreamCall[bytes, bytes]


@dataclass(frozen=True, slots=True)
class Gateway:
    """Three engines, their metrics pages, and a channel to the Envoy in front of them."""

    stack: EnvoyStack
    engines: list[GrpcEngine]
    pages: list[FakeModelServer]
    channel: grpc.aio.Channel

    @property
    def best(self) -> GrpcEngine:
        """Where requests go."""
        return self.engines[BEST]

    def generate(self, body: bytes, identity: str, **arguments: object) -> Call:
        """`body` is a message without its frame."""
        call: Call = self.channel.unary_stream(GENERATE)(body, metadata=(("x-request-id", identity),), **arguments)  # type: ignore[arg-type]
        return call

    def unary(self, path: str, body: bytes, identity: str) -> grpc.aio.UnaryUnaryCall[bytes, bytes]:
        """As `generate`, for methods of one answer."""
        method: grpc.aio.UnaryUnaryMultiCallable[bytes, bytes] = self.channel.unary_unary(path)
        return method(body, metadata=(("x-request-id", identity),))

    async def total(self, name: str, **labels: str) -> float:
        """Of a metric of the picker, over all models."""
        page = await metrics(f"{self.stack.settings.picker_url}/metrics")
        return sum(sample.value for sample in page.find(name) if labels.items() <= sample.labels.items())


@pytest.fixture(params=TRANSPORTS)
async def gateway(request: pytest.FixtureRequest, start_stack: StartStack) -> AsyncIterator[Gateway]:
    async with AsyncExitStack() as started:
        pages = await started.enter_async_context(model_servers(*[Load(queue=queue) for queue in QUEUES]))
        port = consecutive_ports(1)
        engines = [GrpcEngine(page.host, port) for page in pages]
        stack = await start_stack(
            sims=0,
            endpoints=[engine.address for engine in engines],
            config=CONFIG.format(port=pages[0].port),
            envoy_args=["--upstream-http2"],
            picker_args=[f"--transport={request.param}"],
        )
        for engine, queue in zip(engines, QUEUES, strict=True):
            await started.enter_async_context(engine)
            await stack.until_endpoint(engine.address, ready=True, waiting=queue)
        channel = await started.enter_async_context(grpc.aio.insecure_channel(f"127.0.0.1:{stack.settings.port}"))
        yield Gateway(stack, engines, pages, channel)


async def refusal(call: Call) -> grpc.aio.AioRpcError:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        async for _ in call:
            pass
    return caught.value


async def test_calls_go_to_the_best_server_unchanged_and_their_usage_is_counted(gateway: Gateway) -> None:
    body, identity = bare(generate(IDS, stream=True, max_tokens=3)), request_id()
    call = gateway.generate(body, identity)
    messages = [message async for message in call]
    assert messages == [bare(chunk([100 + i], PROMPT_TOKENS, 1)) for i in range(3)] + [bare(complete([102], PROMPT_TOKENS, 1))]
    assert await call.code() is grpc.StatusCode.OK
    assert dict(await call.initial_metadata())[SERVED_BY] == gateway.best.address
    assert gateway.best.asked == [("Generate", body)]
    record = await gateway.stack.decision(identity)
    assert (record["cause"], record["served"], record["path"]) == ("completed", gateway.best.address, GENERATE)
    assert (record["prompt_tokens"], record["completion_tokens"]) == (PROMPT_TOKENS, 3)

    # Of a size that takes several frames of HTTP/2 and several messages of ext_proc.
    body, identity = bare(embed(range(200_000))), request_id()
    assert await gateway.unary(EMBED, body, identity) == bare(embedding(8, PROMPT_TOKENS))
    assert gateway.best.asked[1:] == [("Embed", body)]
    record = await gateway.stack.decision(identity)
    assert (record["cause"], record["prompt_tokens"], record["completion_tokens"]) == ("completed", PROMPT_TOKENS, None)

    # A method that is not read is passed all the same.
    assert await gateway.unary(f"/{SERVICE}/GetModelInfo", b"", request_id()) == MODEL_INFO
    assert [await gateway.total(f"inference_objective_{of}_tokens_sum") for of in ("input", "output")] == [2 * PROMPT_TOKENS, 3]


async def test_a_streamed_answer_passes_message_by_message(gateway: Gateway) -> None:
    gateway.best.may_go_on.clear()
    identity = request_id()
    call = gateway.generate(bare(generate(IDS, stream=True)), identity)
    messages = aiter(call)
    # The server waits until the client has its first message: nobody between them may hold it back.
    assert await anext(messages) == bare(chunk([100], PROMPT_TOKENS, 1))
    assert (await gateway.stack.endpoint(gateway.best.address))["in_flight_requests"] == 1
    gateway.best.may_go_on.set()
    assert len([message async for message in messages]) == 3
    assert (await gateway.stack.decision(identity))["cause"] == "completed"


async def test_a_client_that_leaves_frees_its_place_and_its_server(gateway: Gateway) -> None:
    gateway.best.may_go_on.clear()
    identity = request_id()
    call = gateway.generate(bare(generate(IDS, stream=True)), identity)
    await anext(aiter(call))
    call.cancel()
    record = await gateway.stack.decision(identity)
    assert (record["cause"], record["prompt_tokens"], record["completion_tokens"]) == ("disconnected", PROMPT_TOKENS, 1)

    async def told() -> str | None:
        return None if gateway.best.cancelled == 1 else "the server has not been told"

    await wait_for(told)


async def test_refusals_arrive_as_grpc_statuses(gateway: Gateway) -> None:
    compressed = gateway.generate(bare(generate(text="a" * 1000)), request_id(), compression=grpc.Compression.Gzip)
    for call, details in (
        (compressed, "invalid generate request: compressed gRPC messages are not supported"),
        (gateway.generate(b"\xff", request_id()), "invalid generate request: a number is cut off"),
        (gateway.generate(b"", request_id()), "invalid generate request: must have tokenized or text field"),
    ):
        error = await refusal(call)
        assert (error.code(), error.details()) == (grpc.StatusCode.INVALID_ARGUMENT, f"inference error: BadRequest - {details}")

    for page in gateway.pages:
        await page.stop()
    for engine in gateway.engines:
        await gateway.stack.until_endpoint(engine.address, ready=False)
    error = await refusal(gateway.generate(bare(generate(IDS)), request_id()))
    assert error.code() is grpc.StatusCode.UNAVAILABLE
    assert error.details() == "inference error: ServiceUnavailable - failed to find endpoint candidates for serving the request"
    told = {**dict(error.initial_metadata()), **dict(error.trailing_metadata())}
    assert told["x-llm-d-request-dropped-reason"] == "rejected-no-endpoints"
    assert [engine.asked for engine in gateway.engines] == [[], [], []]


async def test_a_call_that_fails_on_its_server_is_its_error(gateway: Gateway) -> None:
    failures = (Failure(grpc.StatusCode.RESOURCE_EXHAUSTED, "queue is full"), Failure(grpc.StatusCode.INTERNAL, "engine died", after=2))
    for count, failure in enumerate(failures, 1):
        gateway.best.failure = failure
        identity = request_id()
        call = gateway.generate(bare(generate(IDS, stream=True)), identity)
        error = await refusal(call)
        assert (error.code(), error.details()) == (failure.code, failure.details)
        record = await gateway.stack.decision(identity)
        assert (record["cause"], record["status"], record["completion_tokens"]) == ("model_server_error", 200, failure.after or None)
        errors = await gateway.total("inference_objective_request_error_total", error_code="ModelServerError")
        assert errors == count


async def test_many_calls_at_once_on_one_connection(gateway: Gateway) -> None:
    async def ask(i: int) -> int:
        body = bare(generate([i, *range(i * 20)], stream=i % 2 == 0))
        return len([message async for message in gateway.generate(body, request_id())])

    assert await asyncio.gather(*[ask(i) for i in range(100)]) == [4] * 100
    assert sum(len(engine.asked) for engine in gateway.engines) == 100
    await gateway.stack.settled()
