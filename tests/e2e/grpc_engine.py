"""A model server that speaks vLLM's gRPC API, by grpcio: what it answers is set by the test, what it was asked is kept."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from typing import Any

import grpc

from tests.support.vllm_grpc import chunk, complete, embedding

SERVICE = "vllm.grpc.engine.VllmEngine"
SERVED_BY = "x-served-by"
_PREFIX_BYTES = 5  # grpcio writes the frame around a message itself
PROMPT_TOKENS = 7
MODEL_INFO = b"\x0a\x05model"


@dataclass(frozen=True, slots=True)
class Failure:
    """What a call ends with in place of OK, once so many messages have been sent."""

    code: grpc.StatusCode
    details: str
    after: int = 0


class GrpcEngine:
    """`async with GrpcEngine("127.0.1.1", port) as engine`. Every call is answered with `tokens` tokens.

    A streamed answer waits for `may_go_on` behind its first message. `asked` are the messages that came, by method; `cancelled` counts
    calls whose client left.
    """

    def __init__(self, host: str, port: int) -> None:
        self.address = f"{host}:{port}"
        self.tokens = 3
        self.failure: Failure | None = None
        self.may_go_on = asyncio.Event()
        self.may_go_on.set()
        self.asked: list[tuple[str, bytes]] = []
        self.cancelled = 0
        # Two servers must not share a port, which is what Linux and grpcio would otherwise let them do.
        self._server = grpc.aio.server(options=[("grpc.so_reuseport", 0), ("grpc.max_receive_message_length", -1)])
        handlers: dict[str, grpc.RpcMethodHandler[Any, Any]] = {
            "Generate": grpc.unary_stream_rpc_method_handler(self._generate),
            "Embed": grpc.unary_unary_rpc_method_handler(self._embed),
            "GetModelInfo": grpc.unary_unary_rpc_method_handler(self._model_info),
        }
        # Without serializers messages are bytes.
        self._server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(SERVICE, handlers),))

    async def __aenter__(self) -> GrpcEngine:
        assert self._server.add_insecure_port(self.address) == int(self.address.rpartition(":")[2])
        await self._server.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        self.may_go_on.set()
        await self._server.stop(grace=0)

    async def _called(self, method: str, request: bytes, context: grpc.aio.ServicerContext[bytes, bytes], sent: int = 0) -> None:
        if sent == 0:
            self.asked.append((method, request))
            await context.send_initial_metadata(((SERVED_BY, self.address),))
        if self.failure is not None and self.failure.after == sent:
            await context.abort(self.failure.code, self.failure.details)

    def _answer(self) -> Sequence[bytes]:
        """Each message tells of its own tokens, the last one repeats what the one before it said."""
        framed = [chunk([100 + i], PROMPT_TOKENS, 1) for i in range(self.tokens)]
        return [message[_PREFIX_BYTES:] for message in (*framed, complete([100 + self.tokens - 1], PROMPT_TOKENS, 1))]

    async def _generate(self, request: bytes, context: grpc.aio.ServicerContext[bytes, bytes]) -> AsyncIterator[bytes]:
        try:
            for sent, message in enumerate(self._answer()):
                await self._called("Generate", request, context, sent)
                yield message
                await self.may_go_on.wait()
        except asyncio.CancelledError:
            self.cancelled += 1
            raise

    async def _embed(self, request: bytes, context: grpc.aio.ServicerContext[bytes, bytes]) -> bytes:
        await self._called("Embed", request, context)
        return embedding(8, PROMPT_TOKENS)[_PREFIX_BYTES:]

    async def _model_info(self, request: bytes, context: grpc.aio.ServicerContext[bytes, bytes]) -> bytes:
        await self._called("GetModelInfo", request, context)
        return MODEL_INFO


def bare(body: bytes) -> bytes:
    """A body of `tests.support.vllm_grpc` as grpcio takes it: without the frame."""
    return body[_PREFIX_BYTES:]
