"""A model server that counts how often its metrics are read, holds its answers back when told to, and reports its load when asked."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping

from tests.support.model_server import Load
from tests.support.ports import free_port

REPORT = 'JSON {"named_metrics": {"num_requests_waiting": 7.0, "kv_cache_usage_perc": 0.5}}'

ANSWER = b'{"id":"1","model":"m","choices":[],"usage":{"prompt_tokens":3,"completion_tokens":2,"total_tokens":5}}'


class CountingServer:
    """`async with CountingServer() as server`. `reads` of /metrics; `asked` are the load formats asked for, "" for none.

    While `broken` is true the metrics page is answered with 500. Answers wait for `may_answer`.
    """

    def __init__(self) -> None:
        self.port = free_port()
        self.load = Load()
        self.reads = 0
        self.broken = False
        self.asked: list[str] = []
        self.may_answer = asyncio.Event()
        self.may_answer.set()
        self._server: asyncio.Server | None = None

    @property
    def address(self) -> str:
        """`host:port`."""
        return f"127.0.0.1:{self.port}"

    async def __aenter__(self) -> CountingServer:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", self.port)
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._server is not None
        self.may_answer.set()
        self._server.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while True:
                first, *lines = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").strip().split("\r\n")
                headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
                await _read_body(reader, headers)
                if first.startswith("GET /metrics "):
                    self.reads += 1
                    writer.write(_answer("500 Broken" if self.broken else "200 OK", "text/plain", self.load.page().encode()))
                else:
                    asked = headers.get("endpoint-load-metrics-format", "")
                    self.asked.append(asked)
                    await self.may_answer.wait()
                    extra = f"x-served-by: {self.address}\r\n" + (f"endpoint-load-metrics: {REPORT}\r\n" if asked else "")
                    writer.write(_answer("200 OK", "application/json", ANSWER, extra))
                await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()


async def _read_body(reader: asyncio.StreamReader, headers: Mapping[str, str]) -> None:
    if headers.get("transfer-encoding") != "chunked":
        await reader.readexactly(int(headers.get("content-length", 0)))
        return
    while size := int(await reader.readuntil(b"\r\n"), 16):
        await reader.readexactly(size + 2)
    await reader.readuntil(b"\r\n")


def _answer(status: str, content_type: str, body: bytes, extra: str = "") -> bytes:
    return f"HTTP/1.1 {status}\r\ncontent-type: {content_type}\r\n{extra}content-length: {len(body)}\r\n\r\n".encode() + body
