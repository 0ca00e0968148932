"""HTTP/1.1 written by hand, for what HTTP clients do not do."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from dataclasses import dataclass

GREATEST_WAIT_S = 60.0


@dataclass(frozen=True, slots=True)
class RawAnswer:
    """`sent` counts the parts of the request that had been handed over when the answer was complete."""

    status: int
    headers: dict[str, str]
    body: bytes
    sent: int


async def send_raw(port: int, parts: Iterable[bytes]) -> RawAnswer:
    """Send a request part by part, listening meanwhile: the answer may come before the request has ended.

    Envoy reads no more of a request that it has refused and closes the connection a second later; clients that listen only after
    their last byte, as httpx does, then find a broken connection in place of the answer.
    """
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    count = 0

    async def send() -> None:
        nonlocal count
        for part in parts:
            writer.write(part)
            await writer.drain()
            count += 1

    sending, answering = asyncio.create_task(send()), asyncio.create_task(_read(reader))
    try:
        async with asyncio.timeout(GREATEST_WAIT_S):
            status, headers, body = await answering
        return RawAnswer(status, headers, body, count)
    finally:
        for task in (sending, answering):
            task.cancel()
        await asyncio.gather(sending, answering, return_exceptions=True)
        writer.close()


async def _read(reader: asyncio.StreamReader) -> tuple[int, dict[str, str], bytes]:
    head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
    first, *lines = head.strip().split("\r\n")
    headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
    if headers.get("transfer-encoding") != "chunked":
        return int(first.split()[1]), headers, await reader.readexactly(int(headers.get("content-length", "0")))
    chunks: list[bytes] = []
    while size := int(await reader.readline(), 16):
        chunks.append(await reader.readexactly(size))
        await reader.readline()
    return int(first.split()[1]), headers, b"".join(chunks)


def chunked(part: bytes) -> bytes:
    """One chunk of a body without a length."""
    return b"%x\r\n%b\r\n" % (len(part), part)
