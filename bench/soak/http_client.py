"""HTTP/1.1 by hand: a client that can leave at any moment of an exchange, which libraries do not let one do."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field


class Left(Exception):  # noqa: N818  (what was wanted, not an error)
    """The client has left, as it was told to."""


class Broken(Exception):  # noqa: N818
    """The connection ended, or said something that is no HTTP, in mid-exchange."""


@dataclass(slots=True)
class Answer:
    """Of the gateway."""

    status: int = 0
    headers: dict[bytes, bytes] = field(default_factory=dict)
    body: bytearray = field(default_factory=bytearray)


PHASES = ("request headers", "request body", "waiting", "response headers", "response body")


class Connection:
    """One connection to the gateway, opened when it is needed and again after it has ended."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._reader: asyncio.StreamReader | None = None
        self._writer: asyncio.StreamWriter | None = None

    def close(self) -> None:
        """Abruptly."""
        if self._writer is not None:
            self._writer.transport.abort()
        self._reader = self._writer = None

    async def exchange(
        self, path: str, headers: Sequence[tuple[str, str]], parts: Sequence[bytes], *, leave: str = "", dawdle_s: float = 0.0
    ) -> Answer:
        """One request and its answer. `leave`: the phase in which the client closes the connection (raises Left). `dawdle_s`: the time
        it takes to read each piece of the answer. Raises Broken."""
        try:
            return await self._exchange(path, headers, parts, leave, dawdle_s)
        except (asyncio.IncompleteReadError, asyncio.LimitOverrunError, ConnectionError, ValueError) as error:
            self.close()
            raise Broken(f"{type(error).__name__}: {error}"[:200]) from None
        except BaseException:
            self.close()
            raise

    async def _exchange(self, path: str, headers: Sequence[tuple[str, str]], parts: Sequence[bytes], leave: str, dawdle_s: float) -> Answer:
        if self._reader is None or self._writer is None or self._reader.at_eof():
            self._reader, self._writer = await asyncio.open_connection("127.0.0.1", self._port)
        reader, writer = self._reader, self._writer
        lines = [f"POST {path} HTTP/1.1", "host: soak", f"content-length: {sum(map(len, parts))}"]
        head = "\r\n".join([*lines, *[f"{name}: {value}" for name, value in headers], "", ""]).encode()
        if leave == "request headers":
            writer.write(head[: len(head) // 2])
            await writer.drain()
            raise Left
        writer.write(head)
        for number, part in enumerate(parts):
            if leave == "request body" and number == len(parts) // 2:
                writer.write(part[: len(part) // 2])
                await writer.drain()
                raise Left
            writer.write(part)
            await writer.drain()
        if leave == "waiting":
            await asyncio.sleep(0.002)
            raise Left
        return await self._answer(reader, leave, dawdle_s)

    async def _answer(self, reader: asyncio.StreamReader, leave: str, dawdle_s: float) -> Answer:
        answer = await _head(reader)
        if leave == "response headers":
            raise Left
        async for piece in _pieces(reader, answer.headers):
            answer.body += piece
            if leave == "response body":
                raise Left
            if dawdle_s:
                await asyncio.sleep(dawdle_s)
        if answer.headers.get(b"connection") == b"close":
            self.close()
        return answer


async def _head(reader: asyncio.StreamReader) -> Answer:
    first, *lines = (await reader.readuntil(b"\r\n\r\n")).strip().split(b"\r\n")
    headers = {name.lower(): value.strip() for name, _, value in (line.partition(b":") for line in lines)}
    return Answer(int(first.split()[1]), headers)


async def _pieces(reader: asyncio.StreamReader, headers: dict[bytes, bytes]) -> AsyncIterator[bytes]:
    if headers.get(b"transfer-encoding") == b"chunked":
        while size := int(await reader.readline(), 16):
            yield await reader.readexactly(size)
            await reader.readline()
        await reader.readline()
        return
    left = int(headers.get(b"content-length", b"0"))
    while left:
        piece = await reader.read(min(left, 65_536))
        if not piece:
            raise asyncio.IncompleteReadError(b"", left)
        left -= len(piece)
        yield piece
