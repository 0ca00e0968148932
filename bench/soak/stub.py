"""A model server that fails on purpose, and remembers for whom. One of the fleet; it answers like the others most of the time."""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from random import Random

ID_HEADER = b"x-soak-id"
FAULTS = ("reset at once", "reset before the answer", "status 500", "reset after the headers", "reset in mid-answer", "cut short")
FAULT_SHARE = 0.15
_MOST_FAULTS = 10_000
_METRICS = b"""\
vllm:num_requests_waiting{model_name="m"} 0
vllm:num_requests_running{model_name="m"} 0
vllm:kv_cache_usage_perc{model_name="m"} 0
vllm:cache_config_info{block_size="16",num_gpu_blocks="4096"} 1
"""
_ANSWER = json.dumps({
    "id": "stub", "object": "text_completion", "model": "m", "choices": [{"index": 0, "text": "word " * 50, "finish_reason": "stop"}],
    "usage": {"prompt_tokens": 10, "completion_tokens": 50, "total_tokens": 60},
}).encode()  # fmt: skip
_EVENT = b'data: {"id":"stub","object":"text_completion","model":"m","choices":[{"index":0,"text":" word"}]}\n\n'
_LAST = b'data: {"id":"stub","model":"m","choices":[],"usage":{"prompt_tokens":10,"completion_tokens":20}}\n\ndata: [DONE]\n\n'
_EVENTS = 20


class Stub:
    """Runs on the loop that starts it. `faults` are by request id, until they are taken."""

    def __init__(self, random: Random) -> None:
        self.faults: dict[str, str] = {}
        self.injected: Counter[str] = Counter()
        self.served = 0
        self._random = random
        self._server: asyncio.Server | None = None

    async def start(self) -> int:
        """The port, on 127.0.0.1."""
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        return int(self._server.sockets[0].getsockname()[1])

    def stop(self) -> None:
        """Take no more connections."""
        if self._server is not None:
            self._server.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while await self._one(reader, writer):
                pass
        except (asyncio.IncompleteReadError, ConnectionError):
            pass  # the proxy has closed the connection, or its client has left
        finally:
            writer.close()

    async def _one(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        """Whether the connection may be used again."""
        first, *lines = (await reader.readuntil(b"\r\n\r\n")).split(b"\r\n")
        headers = {name.lower(): value.strip() for name, _, value in (line.partition(b":") for line in lines)}
        if first.startswith(b"GET"):
            status, body = (b"200 OK", _METRICS) if b"/metrics" in first else (b"404 Not Found", b"")
            writer.write(b"HTTP/1.1 %b\r\ncontent-type: text/plain\r\ncontent-length: %d\r\n\r\n%b" % (status, len(body), body))
            await writer.drain()
            return True
        self.served += 1
        fault = self._random.choice(FAULTS) if self._random.random() < FAULT_SHARE else ""
        if fault:
            self.injected[fault] += 1
            self.faults[headers.get(ID_HEADER, b"").decode()] = fault
            if len(self.faults) > _MOST_FAULTS:
                # Its client had left before the fault came.
                del self.faults[next(iter(self.faults))]
        if fault == "reset at once":
            writer.transport.abort()
            return False
        await _body(reader, headers)
        if fault == "reset before the answer":
            writer.transport.abort()
            return False
        if fault == "status 500":
            writer.write(b"HTTP/1.1 500 Internal Server Error\r\ncontent-type: text/plain\r\ncontent-length: 4\r\n\r\nsick")
            await writer.drain()
            return True
        streaming = self._random.random() < 0.5 if fault else headers.get(b"x-soak-kind") == b"sse"
        await (_stream(writer, fault) if streaming else _answer(writer, fault))
        if fault.startswith("reset"):
            writer.transport.abort()
        return not fault


async def _body(reader: asyncio.StreamReader, headers: dict[bytes, bytes]) -> None:
    if headers.get(b"transfer-encoding") != b"chunked":
        await reader.readexactly(int(headers.get(b"content-length", b"0")))
        return
    while size := int(await reader.readline(), 16):
        await reader.readexactly(size + 2)
    await reader.readline()


async def _answer(writer: asyncio.StreamWriter, fault: str) -> None:
    writer.write(b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n" % len(_ANSWER))
    if fault == "reset after the headers":
        await writer.drain()
        return
    writer.write(_ANSWER[: len(_ANSWER) // 2] if fault else _ANSWER)
    await writer.drain()


async def _stream(writer: asyncio.StreamWriter, fault: str) -> None:
    writer.write(b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n")
    await writer.drain()
    if fault == "reset after the headers":
        return
    for number in range(_EVENTS):
        if fault and number == _EVENTS // 2:
            return
        writer.write(b"%x\r\n%b\r\n" % (len(_EVENT), _EVENT))
        await writer.drain()
        await asyncio.sleep(0.002)
    writer.write(b"%x\r\n%b\r\n0\r\n\r\n" % (len(_LAST), _LAST))
    await writer.drain()
