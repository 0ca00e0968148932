"""A client on a socket that sends what it is given and shows every frame of the answer."""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from collections.abc import AsyncIterator, Callable

from hyperframe.frame import DataFrame, Frame, RstStreamFrame, SettingsFrame, WindowUpdateFrame

from tests.picker.extproc.h2.peer import PREFACE
from tests.support.waiting import PATIENCE_S

WIDE = WindowUpdateFrame(0, 2**31 - 1 - 65_535).serialize()
HELLO = PREFACE + SettingsFrame(0).serialize() + SettingsFrame(0, flags=["ACK"]).serialize()


class SocketPeer:
    """`frames` are those that have come, `bodies` the DATA and `resets` the error code of each stream; `closed` once the server
    has ended the connection."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.frames: list[Frame] = []
        self.bodies: dict[int, bytearray] = {}
        self.resets: dict[int, int] = {}
        self.closed = False
        self._news = asyncio.Event()
        self._reader = reader
        self._writer = writer

    async def listen(self) -> None:
        """Until the connection ends."""
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
            while True:
                frame, length = Frame.parse_frame_header(memoryview(await self._reader.readexactly(9)))
                frame.parse_body(memoryview(await self._reader.readexactly(length)))
                self.frames.append(frame)
                if isinstance(frame, DataFrame):
                    self.bodies.setdefault(frame.stream_id, bytearray()).extend(frame.data)
                elif isinstance(frame, RstStreamFrame):
                    self.resets[frame.stream_id] = frame.error_code
                self._news.set()
        self.closed = True
        self._news.set()

    async def send(self, data: bytes) -> None:
        """A connection that is gone is no error: `closed` tells."""
        with contextlib.suppress(ConnectionError):
            self._writer.write(data)
            await self._writer.drain()

    async def until(self, wanted: Callable[[], bool]) -> None:
        """Returns when `wanted`, or at the end of the connection; what is wanted comes with a frame."""
        async with asyncio.timeout(PATIENCE_S):
            while not wanted() and not self.closed:
                self._news.clear()
                await self._news.wait()


@contextlib.asynccontextmanager
async def connected(port: int, context: ssl.SSLContext | None = None, *, listening: bool = True) -> AsyncIterator[SocketPeer]:
    """A connection that has sent its preface and SETTINGS. With `listening` off it reads nothing."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port, ssl=context)
    peer = SocketPeer(reader, writer)
    task = asyncio.create_task(peer.listen()) if listening else None
    await peer.send(HELLO)
    try:
        yield peer
    finally:
        writer.transport.abort()
        if task is not None:
            await task
