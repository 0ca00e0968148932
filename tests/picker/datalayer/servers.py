"""A scripted HTTP server, and waiting for something to become true."""

from __future__ import annotations

import asyncio
import ssl as tls
from collections.abc import Callable


async def until(wanted: Callable[[], bool]) -> None:
    """Wait for a condition; fails after a time that only a mistake can take."""
    async with asyncio.timeout(20):
        while not wanted():  # noqa: ASYNC110 - the conditions have no event of their own
            await asyncio.sleep(0.002)


class Server:
    """Answers the n-th request with the n-th script entry (the last one again and again); None closes without an answer."""

    def __init__(self, *answers: bytes | None, close_after: bool = False, ssl: tls.SSLContext | None = None) -> None:
        self.answers = list(answers)
        self.close_after = close_after
        self.ssl = ssl
        self.requests: list[bytes] = []
        self.connections = 0
        self.port = 0
        self._server: asyncio.Server | None = None
        self._writers: list[asyncio.StreamWriter] = []

    async def __aenter__(self) -> Server:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0, ssl=self.ssl)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *exc: object) -> None:
        assert self._server is not None
        self._server.close()
        self.hang_up()
        await self._server.wait_closed()

    def hang_up(self) -> None:
        for writer in self._writers:
            writer.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        self._writers.append(writer)
        try:
            while True:
                self.requests.append(await reader.readuntil(b"\r\n\r\n"))
                answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
                if answer is None:
                    break
                writer.write(answer)
                await writer.drain()
                if self.close_after:
                    break
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()
