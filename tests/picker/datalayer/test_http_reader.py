"""The reader against tiny servers on real sockets, and with a clock and a dialler of our own where time matters."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest

from picker.datalayer.http_reader import HttpReader, ReadError
from picker.errors import ConfigError
from tests.picker.datalayer.servers import Server, until

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello"


async def fetch(reader: HttpReader) -> bytes | ReadError:
    future: asyncio.Future[bytes | ReadError] = asyncio.get_running_loop().create_future()
    reader.read(future.set_result)
    return await future


async def fetch_once(*answers: bytes | None, close_after: bool = False, max_body_bytes: int = 1000) -> bytes | ReadError:
    async with Server(*answers, close_after=close_after) as server:
        reader = HttpReader("127.0.0.1", server.port, timeout_s=20, max_body_bytes=max_body_bytes)
        result = await fetch(reader)
        reader.close()
        await reader.wait_closed()
        return result


def error_of(result: bytes | ReadError) -> ReadError:
    assert isinstance(result, ReadError)
    return result


@pytest.mark.parametrize(
    ("answer", "close_after", "body"),
    [
        (OK, False, b"hello"),
        (b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n3\r\nhel\r\n2\r\nlo\r\n0\r\n\r\n", False, b"hello"),
        (b"HTTP/1.1 200 OK\r\n\r\nhello", True, b"hello"),
        (b"HTTP/1.0 200 OK\r\n\r\n", True, b""),
        (b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 5\r\n\r\nhello", True, b"hello"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", False, b""),
        (b"HTTP/1.1 100 Continue\r\n\r\n" + OK, False, b"hello"),
        (OK + OK, False, b"hello"),
        (OK + b"garbage", False, b"hello"),
    ],
)
async def test_bodies(answer: bytes, close_after: bool, body: bytes) -> None:
    assert await fetch_once(answer, close_after=close_after) == body


@pytest.mark.parametrize(
    ("answer", "close_after", "kind", "status"),
    [
        (b"HTTP/1.1 404 Not Found\r\nContent-Length: 4\r\n\r\nnope", False, "bad_answer", 404),
        (b"HTTP/1.1 204 No Content\r\n\r\n", False, "bad_answer", 204),
        (b"HTTP/1.1 503 Busy\r\n\r\nbusy", True, "bad_answer", 503),
        (b"SSH-2.0-OpenSSH\r\n", False, "bad_answer", None),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhel", True, "bad_answer", 200),
        (b"HTTP/1.1 200 OK\r\nContent-Le", True, "bad_answer", None),
        (b"HTTP/1.1 101 Switching\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n", False, "bad_answer", 101),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 2000\r\n\r\n" + b"x" * 2000, False, "bad_answer", 200),
        (b"HTTP/1.1 200 OK\r\n\r\n" + b"x" * 2000, True, "bad_answer", 200),
        (None, True, "unreachable", None),
    ],
)
async def test_no_page(answer: bytes | None, close_after: bool, kind: str, status: int | None) -> None:
    error = error_of(await fetch_once(answer, close_after=close_after))
    assert (error.kind, error.status) == (kind, status)


async def test_one_connection_for_many_reads_and_a_ready_made_request() -> None:
    async with Server(OK) as server:
        reader = HttpReader("127.0.0.1", server.port, path="/m?x=1")
        for _ in range(5):
            assert await fetch(reader) == b"hello"
        reader.close()
        assert server.connections == 1
        assert server.requests[0].startswith(b"GET /m?x=1 HTTP/1.1\r\nHost: 127.0.0.1:%d\r\n" % server.port)


async def test_statuses_keep_the_connection() -> None:
    async with Server(b"HTTP/1.1 500 No\r\nContent-Length: 2\r\n\r\nno", OK) as server:
        reader = HttpReader("127.0.0.1", server.port)
        assert error_of(await fetch(reader)).status == 500
        assert await fetch(reader) == b"hello"
        reader.close()
        assert server.connections == 1


async def test_more_than_was_asked_for_costs_the_connection() -> None:
    async with Server(OK + OK, OK) as server:
        reader = HttpReader("127.0.0.1", server.port)
        assert await fetch(reader) == b"hello"
        assert await fetch(reader) == b"hello"
        reader.close()
        assert server.connections == 2


async def test_an_idle_connection_closed_by_the_server_is_dialled_again() -> None:
    async with Server(OK, OK, None, OK) as server:
        reader = HttpReader("127.0.0.1", server.port)
        assert await fetch(reader) == b"hello"
        server.hang_up()
        assert await fetch(reader) == b"hello", "closed while idle, seen before or after the request"
        assert await fetch(reader) == b"hello", "closed on the request, asked again on a new connection"
        reader.close()
        assert server.connections == 3


async def test_only_one_retry_and_none_on_a_new_connection() -> None:
    async with Server(OK, None) as server:
        reader = HttpReader("127.0.0.1", server.port)
        assert await fetch(reader) == b"hello"
        assert error_of(await fetch(reader)).kind == "unreachable"
        assert server.connections == 2
        assert error_of(await fetch(reader)).kind == "unreachable"
        assert server.connections == 3
        reader.close()


async def test_refused() -> None:
    async with Server(OK) as server:
        port = server.port
    reader = HttpReader("127.0.0.1", port)
    assert error_of(await fetch(reader)).kind == "unreachable"
    reader.close()


async def test_ipv6() -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        request = await reader.readuntil(b"\r\n\r\n")
        assert b"Host: [::1]:" in request
        writer.write(OK)
        writer.close()

    try:
        server = await asyncio.start_server(serve, "::1", 0)
    except OSError:
        pytest.skip("no IPv6 here")
    reader = HttpReader("::1", server.sockets[0].getsockname()[1])
    assert await fetch(reader) == b"hello"
    reader.close()
    server.close()


class FakeTimers:
    """`call_later` that fires when told to."""

    def __init__(self) -> None:
        self.waiting: list[FakeTimer] = []

    def call_later(self, delay_s: float, call: Callable[[], None]) -> FakeTimer:
        timer = FakeTimer(self, delay_s, call)
        self.waiting.append(timer)
        return timer


class FakeTimer:
    def __init__(self, owner: FakeTimers, delay_s: float, call: Callable[[], None]) -> None:
        self.owner, self.delay_s, self.call = owner, delay_s, call

    def cancel(self) -> None:
        if self in self.owner.waiting:
            self.owner.waiting.remove(self)

    def fire(self) -> None:
        self.owner.waiting.remove(self)
        self.call()


async def test_timeout_while_dialling_ends_the_task() -> None:
    timers, dialled = FakeTimers(), asyncio.Event()

    async def connect(factory: Callable[[], asyncio.Protocol], host: str, port: int) -> object:
        dialled.set()
        return await asyncio.Event().wait()

    reader = HttpReader("192.0.2.1", 80, connect=connect, call_later=timers.call_later, timeout_s=3)
    results: list[bytes | ReadError] = []
    reader.read(results.append)
    await dialled.wait()
    assert reader.busy
    with pytest.raises(RuntimeError):
        reader.read(results.append)
    assert [t.delay_s for t in timers.waiting] == [3]
    timers.waiting[0].fire()
    assert error_of(results[0]).kind == "timeout"
    assert not reader.busy
    await reader.wait_closed()
    assert len(asyncio.all_tasks()) == 1


@pytest.mark.parametrize(("beginning", "status"), [(b"", None), (b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhe", 200)])
async def test_timeout_in_an_answer_then_a_new_connection(beginning: bytes, status: int | None) -> None:
    timers = FakeTimers()
    async with Server(beginning, OK) as server:
        reader = HttpReader("127.0.0.1", server.port, call_later=timers.call_later)
        results: list[bytes | ReadError] = []
        reader.read(results.append)
        connection = reader._connection
        assert connection is not None
        await until(lambda: bool(server.requests) and connection.status == status)
        timers.waiting[0].fire()
        assert (error_of(results[0]).kind, error_of(results[0]).status) == ("timeout", status)
        assert await fetch(reader) == b"hello"
        assert server.connections == 2
        assert timers.waiting == []
        reader.close()


async def test_close_gives_up_silently() -> None:
    timers = FakeTimers()
    async with Server(b"") as server:
        reader = HttpReader("127.0.0.1", server.port, call_later=timers.call_later)
        results: list[bytes | ReadError] = []
        reader.read(results.append)
        reader.close()
        await reader.wait_closed()
        reader.read(results.append)
        await until(lambda: bool(server.requests))
        reader.close()
        await asyncio.sleep(0.01)
        assert results == []
        assert timers.waiting == []


async def test_a_dialled_connection_that_nobody_waits_for_is_closed() -> None:
    async with Server(OK) as server:
        loop = asyncio.get_running_loop()
        made: list[asyncio.Transport] = []

        async def connect(factory: Callable[[], asyncio.Protocol], host: str, port: int) -> object:
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                transport, _ = await loop.create_connection(factory, host, port)
                made.append(transport)
            return None

        reader = HttpReader("127.0.0.1", server.port, connect=connect)
        reader.read(lambda result: None)
        await asyncio.sleep(0)
        reader.close()
        await reader.wait_closed()
        assert made[0].is_closing()


@pytest.mark.parametrize("path", ["metrics", "", "/a b", "/a\r\nX: y", "/ü"])
async def test_paths_that_cannot_be_sent(path: str) -> None:
    with pytest.raises(ConfigError, match="metrics path"):
        HttpReader("127.0.0.1", 1, path=path)


async def test_a_hang_up_between_two_reads_is_told_once_and_one_of_our_own_is_not() -> None:
    told: list[int] = []
    async with Server(OK) as server:
        reader = HttpReader("127.0.0.1", server.port, timeout_s=20)
        reader.watch(lambda: told.append(1))
        assert await fetch(reader) == b"hello"
        assert not told
        await server.__aexit__()
        await until(lambda: bool(told))
        assert told == [1]
        reader.close()
        await reader.wait_closed()
    async with Server(OK, close_after=False) as server:
        reader = HttpReader("127.0.0.1", server.port, timeout_s=20)
        reader.watch(lambda: told.append(2))
        assert await fetch(reader) == b"hello"
        reader.close()
        await reader.wait_closed()
        await asyncio.sleep(0)
    assert told == [1]
