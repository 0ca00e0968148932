"""`python -m bench.extproc.upstream`: model servers that cost next to nothing, any number of them in one process.

They answer every POST as told on standard input, one JSON object a line (`{"events": 100, "pace_ms": 10}`, `{"page": "idle"}`), and GET
with vLLM's page of metrics. The first line they print lists their ports; then there is one line for each line that they read.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import sys
from itertools import cycle
from pathlib import Path
from typing import Any, cast

import httptools

from bench.extproc.bodies import SSE_HEAD, json_answer, sse_chunks
from bench.extproc.wheel import Wheel

# Real pages, which the tests of the scraper read, too.
PAGES = {
    "busy": Path(__file__).parents[2] / "tests" / "data" / "vllm_metrics.txt",
    "idle": Path(__file__).parents[2] / "tests" / "data" / "vllm_metrics_idle.txt",
}
_VARIANTS = 8
_CPU = b"\nprocess_cpu_seconds_total "


def page_responses(page: bytes) -> list[bytes]:
    """HTTP responses with the page; as with a real server, no two in a row are the same to the byte."""
    before, found, after = page.partition(_CPU)
    rest = after.partition(b"\n")[2]
    pages = [before + found + b"%d.%02d\n" % (11, i) + rest for i in range(_VARIANTS)] if found else [page]
    head = b"HTTP/1.1 200 OK\r\ncontent-type: text/plain; version=0.0.4; charset=utf-8\r\ncontent-length: %d\r\n\r\n"
    return [head % len(text) + text for text in pages]


class Servers:
    """What all connections share: the answer, and the wheel."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.wheel = Wheel(loop)
        self.json = json_answer()
        self.chunks: list[bytes] = []
        self.pace_ms = 0
        self._pages = {name: cycle(page_responses(path.read_bytes())) for name, path in PAGES.items()}
        self.page = self._pages["busy"]

    def told(self, order: dict[str, Any]) -> dict[str, float]:
        """From now on. Answers how late the wheel has been at most since the last order, in ms."""
        self.page = self._pages[order.get("page", "busy")]
        events = int(order.get("events", 0))
        self.chunks = sse_chunks(events) if events else []
        self.pace_ms = int(order.get("pace_ms", 0))
        late_ms, self.wheel.latest_s = self.wheel.latest_s * 1e3, 0.0
        return {"late_ms": late_ms}


class Connection(asyncio.Protocol):
    """One keep-alive connection; bodies are counted by the parser and looked at by nobody."""

    def __init__(self, servers: Servers) -> None:
        self._servers = servers
        self._parser = httptools.HttpRequestParser(self)
        self._transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Part of asyncio.Protocol."""
        self._transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        """Part of asyncio.Protocol."""
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserError:
            if self._transport is not None:
                self._transport.abort()

    def connection_lost(self, exc: Exception | None) -> None:
        """Part of asyncio.Protocol."""
        self._transport = None

    def on_message_complete(self) -> None:
        """Called by the parser."""
        transport, servers = self._transport, self._servers
        if transport is None:
            return
        if self._parser.get_method() == b"GET":
            transport.write(next(servers.page))
        elif not servers.chunks:
            transport.write(servers.json)
        else:
            chunks = iter(servers.chunks)
            transport.write(SSE_HEAD + next(chunks))
            left = len(servers.chunks) - 1

            def beat() -> bool:
                nonlocal left
                if self._transport is None:
                    return False
                self._transport.write(next(chunks))
                left -= 1
                return left > 0

            servers.wheel.add(beat, servers.pace_ms)


async def serve(count: int) -> None:
    """Until standard input ends."""
    loop = asyncio.get_running_loop()
    servers = Servers(loop)
    listening = [await loop.create_server(lambda: Connection(servers), "127.0.0.1", 0, backlog=1024) for _ in range(count)]
    over = asyncio.Event()
    unread = b""

    def heard() -> None:
        nonlocal unread
        data = os.read(0, 65_536)
        if not data:
            over.set()
        *lines, unread = (unread + data).split(b"\n")
        for line in lines:
            _say(servers.told(json.loads(line)))

    loop.add_reader(0, heard)
    _say([server.sockets[0].getsockname()[1] for server in listening])
    await over.wait()


def _say(what: object) -> None:
    sys.stdout.write(json.dumps(what) + "\n")
    sys.stdout.flush()


def main() -> int:
    """Exit status 0."""
    import uvloop

    parser = argparse.ArgumentParser(prog="python -m bench.extproc.upstream", description=__doc__, allow_abbrev=False)
    parser.add_argument("--servers", type=int, default=10, metavar="N", help="(default: %(default)s)")
    uvloop.run(serve(parser.parse_args().servers))
    return 0


if __name__ == "__main__":
    sys.exit(main())
