"""The few HTTP requests that benchmarks themselves send: is it up, does a request pass, how long does the loop take to answer."""

from __future__ import annotations

import asyncio
from time import perf_counter

from bench.ports import HOST

ANSWER_S = 5.0
LAG_INTERVAL_S = 0.02


async def request(port: int, text: bytes) -> tuple[int, bytes]:
    """Status and body of one HTTP/1.1 exchange. Raises OSError when there is no whole answer within 5 s."""
    async with asyncio.timeout(ANSWER_S):
        reader, writer = await asyncio.open_connection(HOST, port)
        try:
            writer.write(text)
            return await _answer(reader)
        finally:
            writer.close()


def get(path: str) -> bytes:
    """A GET request."""
    return f"GET {path} HTTP/1.1\r\nhost: {HOST}\r\n\r\n".encode()


async def _answer(reader: asyncio.StreamReader) -> tuple[int, bytes]:
    try:
        head = (await reader.readuntil(b"\r\n\r\n")).lower()
        status = int(head.split(b" ", 2)[1])
        if b"\r\ntransfer-encoding: chunked" in head:
            body = b""
            while size := int(await reader.readline(), 16):
                body += (await reader.readexactly(size + 2))[:-2]
            await reader.readline()
            return status, body
        _, _, rest = head.partition(b"\r\ncontent-length:")
        return status, await reader.readexactly(int(rest.partition(b"\r\n")[0] or 0))
    except (asyncio.IncompleteReadError, ValueError) as error:
        raise ConnectionError(f"no HTTP answer: {error}") from None


async def sample_lag(port: int, path: str, seconds: float) -> list[float]:
    """How long each GET took, in ms, one every 20 ms for `seconds`, over one connection.

    The picker answers on the loop that serves its streams: what a request waits for here is what a stream waits for there.
    """
    loop = asyncio.get_running_loop()
    deadline_s = loop.time() + seconds
    lags_ms: list[float] = []
    text = get(path)
    reader, writer = await asyncio.open_connection(HOST, port)
    try:
        while loop.time() < deadline_s:
            async with asyncio.timeout(ANSWER_S):
                began_s = perf_counter()
                writer.write(text)
                await _answer(reader)
                lags_ms.append((perf_counter() - began_s) * 1e3)
            await asyncio.sleep(LAG_INTERVAL_S)
    finally:
        writer.close()
    return lags_ms
