"""The ext_proc service on grpcio: bytes in, bytes out. All it knows of the conversation is receive, finished and end."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence
from time import perf_counter
from typing import Any

import grpc

from picker.endpoint import join_host_port
from picker.errors import ConfigError
from picker.extproc.codec import decode, encode
from picker.extproc.conversation import Conversation
from picker.extproc.events import Deliver, ProtocolError, Reply, ResponseBody, ResponseHeaders, ResponseTrailers
from picker.metrics import Metrics

log = logging.getLogger(__name__)

SERVICE = "envoy.service.ext_proc.v3.ExternalProcessor"
METHOD = f"/{SERVICE}/Process"

_RESPONSE = (ResponseBody, ResponseHeaders, ResponseTrailers)


def bind(server: grpc.aio.Server, host: str, port: int, flag: str, credentials: grpc.ServerCredentials | None) -> None:
    """Listen. Raises ConfigError naming `flag` when the address is taken."""
    address = join_host_port(host, port)
    try:
        bound = server.add_insecure_port(address) if credentials is None else server.add_secure_port(address, credentials)
    except RuntimeError as error:
        raise ConfigError(f"{flag} {port}: cannot listen on {host}: {str(error).splitlines()[0]}") from None
    if bound != port:
        raise ConfigError(f"{flag} {port}: cannot listen on {host}")


class ExternalProcessor(grpc.GenericRpcHandler):
    """A generic handler: grpcio hands over and takes serialized messages."""

    def __init__(self, converse: Callable[[Deliver], Conversation], metrics: Metrics) -> None:
        self._converse = converse
        self._streams = metrics.streams_inflight.cell()
        self._duration = metrics.stream_duration.cell()
        self._ended = metrics.streams_total
        self._response_time = metrics.response_processing.cell()
        self._handler: grpc.RpcMethodHandler[Any, Any] = grpc.stream_stream_rpc_method_handler(self._process)

    @property
    def open_streams(self) -> int:
        """Streams that have not ended."""
        return int(self._streams.value)

    def service(self, handler_call_details: grpc.HandlerCallDetails) -> grpc.RpcMethodHandler[Any, Any] | None:
        """For grpcio: our handler for our method, nothing for others."""
        return self._handler if handler_call_details.method == METHOD else None

    async def _process(self, _: Any, context: grpc.aio.ServicerContext[bytes, bytes]) -> None:
        ears = _Ears(context)
        conversation = self._converse(ears.unasked)
        started = perf_counter()
        self._streams.value += 1
        response_s = 0.0
        code = "Canceled"
        try:
            while not conversation.finished:
                if conversation.may_speak:
                    data = await ears.either()
                    for reply in ears.spoken():
                        await context.write(encode(reply))
                    if data is None:
                        continue
                else:
                    data = await ears.message()
                if data is grpc.aio.EOF:
                    if conversation.waiting and not context.cancelled():
                        # The proxy has said everything and waits for its answer.
                        await ears.word()
                        for reply in ears.spoken():
                            await context.write(encode(reply))
                    # A cancelled stream ends like a finished one; grpcio cancels this task a moment later (794 of 800 times within
                    # one turn of the loop), and `code` should tell the two apart.
                    await asyncio.sleep(0)
                    break
                began = perf_counter()
                event = decode(data)
                replies = conversation.receive(event)
                if isinstance(event, _RESPONSE):
                    response_s += perf_counter() - began
                for reply in replies:
                    await context.write(encode(reply))
            for reply in ears.spoken():
                await context.write(encode(reply))
            code = "OK"
        except ProtocolError as error:
            code = "InvalidArgument"
            log.warning("ext_proc stream refused: %s", error)
            await context.abort(grpc.StatusCode.INVALID_ARGUMENT, str(error))
        finally:
            ears.close()
            self._streams.value -= 1
            self._duration.observe(perf_counter() - started)
            if response_s:
                self._response_time.observe(response_s)
            self._ended.cell(code).value += 1
            conversation.end()


class _Ears:
    """Listens to the proxy, and to what the conversation says unasked. grpcio's reads cannot be given up: one under way is kept."""

    def __init__(self, context: grpc.aio.ServicerContext[bytes, bytes]) -> None:
        self._context = context
        self._read: asyncio.Task[Any] | None = None
        self._spoken: list[Reply] = []
        self._word = asyncio.Event()

    def unasked(self, replies: Sequence[Reply]) -> None:
        """For the conversation."""
        self._spoken += replies
        self._word.set()

    def spoken(self) -> Sequence[Reply]:
        """What was said since the last time."""
        spoken, self._spoken = self._spoken, []
        self._word.clear()
        return spoken

    async def message(self) -> Any:
        """The next message."""
        if self._read is None:
            return await self._context.read()
        read, self._read = self._read, None
        return await read

    async def word(self) -> None:
        """Until something has been said."""
        await self._word.wait()

    async def either(self) -> Any:
        """The next message; None when something was said before it came."""
        if self._read is None:
            self._read = asyncio.ensure_future(self._context.read())
        word = asyncio.ensure_future(self._word.wait())
        try:
            await asyncio.wait((self._read, word), return_when=asyncio.FIRST_COMPLETED)
        finally:
            word.cancel()
        return await self.message() if self._read.done() else None

    def close(self) -> None:
        """The stream is over."""
        if self._read is not None:
            self._read.cancel()
