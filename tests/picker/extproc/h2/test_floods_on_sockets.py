"""Floods against the server on sockets, and what becomes of everybody else meanwhile."""

from __future__ import annotations

import itertools
import ssl

import grpc
import pytest
from hyperframe.frame import DataFrame, GoAwayFrame, HeadersFrame, SettingsFrame, WindowUpdateFrame

from picker.extproc.h2.limits import Limits
from picker.extproc.h2.tls_context import ServerTls
from tests.picker.extproc.h2.floods import CALM, FLOODS, LARGE, opened
from tests.picker.extproc.h2.peer import Calls, message
from tests.picker.extproc.h2.socket_peer import WIDE, SocketPeer, connected
from tests.picker.extproc.h2.test_server import _client_context, echo_server, talk
from tests.support.waiting import until

pytestmark = pytest.mark.timeout(60)

# Nothing comes back with time, so that a slow machine meets the same limits.
LIMITS = Limits(control_burst=500, control_per_s=0, reset_burst=200, reset_per_s=0, header_block_frames=8)
PORTION = 20
GOOD = 1
"""A stream that means well, on the connection of the flood."""
MOST_PORTIONS = 200

# Nothing may come between the frames of a header block; a window shared with the flood is shared.
ALONE = {"continuation", "tiny connection window"}


async def all_ended(calls: Calls) -> None:
    async def ended() -> bool:
        return all(calls.ends)

    await until(ended, "every call has ended")
    assert all(len(ends) == 1 for ends in calls.ends)


async def ask(peer: SocketPeer, count: int) -> bool:
    """Whether the good stream's message number `count` is answered."""
    question = message(b"%08d" % count)
    await peer.send(DataFrame(GOOD, question).serialize())
    body = peer.bodies.setdefault(GOOD, bytearray())
    expected_bytes = (count + 1) * len(question)
    await peer.until(lambda: len(body) == expected_bytes)
    return body.endswith(question)


@pytest.mark.parametrize("name", FLOODS)
async def test_a_flood_ends_its_connection_while_others_go_on(name: str) -> None:
    async with (
        echo_server(LIMITS) as (server, calls),
        grpc.aio.insecure_channel(f"127.0.0.1:{server.port}") as channel,
        connected(server.port) as peer,
    ):
        flood = FLOODS[name](GOOD + 2)
        await peer.send(opened(GOOD) + WindowUpdateFrame(GOOD, 1_000_000).serialize())
        answered = 0
        for portion in range(MOST_PORTIONS):
            if name not in ALONE:
                answered += await ask(peer, portion)
            await peer.send(b"".join(itertools.islice(flood, PORTION)))
            # A stream of another connection, through the server that has just had the portion.
            assert await talk(channel, b"%d" % portion) == [b"%d" % portion]
            if peer.closed:
                break
        assert peer.closed
        assert answered >= 5 or name in ALONE
        last = peer.frames[-1]
        assert isinstance(last, GoAwayFrame) and last.error_code == CALM
        await all_ended(calls)
        assert server.open_streams == 0


async def test_resets_below_the_limit_leave_the_connection_alone() -> None:
    async with echo_server(LIMITS) as (server, calls), connected(server.port) as peer:
        await peer.send(opened(GOOD))
        flood = FLOODS["rapid reset"](GOOD + 2)
        await peer.send(b"".join(itertools.islice(flood, LIMITS.reset_burst)))
        assert await ask(peer, 0)
        assert server.open_streams == 1
        assert [len(ends) for ends in calls.ends] == [0] + [1] * LIMITS.reset_burst


async def test_streams_beyond_the_limit_do_not_hurt_those_within() -> None:
    limits = Limits(max_streams=3)
    async with echo_server(limits) as (server, _), connected(server.port) as peer:
        await peer.send(b"".join([opened(stream) for stream in range(GOOD, 40, 2)]))
        assert await ask(peer, 0)
        assert peer.resets == dict.fromkeys(range(7, 40, 2), 7)
        assert server.open_streams == 3


async def test_a_stream_whose_answer_is_not_taken_does_not_hold_up_the_next_one() -> None:
    """It has no window; it is reset in time, the other one never notices."""
    async with echo_server(Limits(stall_s=1.0)) as (server, calls), connected(server.port) as peer:
        await peer.send(WIDE + opened(GOOD) + WindowUpdateFrame(GOOD, 1 << 30).serialize())
        await peer.send(SettingsFrame(0, settings={4: 0}).serialize() + opened(3, LARGE))
        asked = 0
        while not peer.resets:
            assert await ask(peer, asked)
            asked += 1
        assert peer.resets == {3: 8}
        assert 3 not in peer.bodies
        assert await ask(peer, asked)
        assert [len(ends) for ends in calls.ends] == [0, 1]


@pytest.mark.parametrize("secure", [False, True], ids=["plain", "tls"])
async def test_a_peer_that_does_not_read_is_dropped_while_others_go_on(secure: bool) -> None:
    tls = ServerTls(None, reload=False) if secure else None
    context: ssl.SSLContext | None = _client_context() if secure else None
    async with echo_server(Limits(stall_s=1.0), tls) as (server, calls):
        async with connected(server.port, context, listening=False) as idler, connected(server.port, context) as peer:
            # Each message asks for a megabyte that nobody reads; the socket takes a few of them.
            await idler.send(WIDE + SettingsFrame(0, settings={4: 2**31 - 1}).serialize() + opened(1, LARGE * 400) + opened(3))
            await peer.send(WIDE + opened(GOOD) + WindowUpdateFrame(GOOD, 1 << 30).serialize())
            asked = 0
            while not (large := [call for call in calls.made if LARGE[5:] in call.received]) or not large[0].ends:
                assert await ask(peer, asked)
                asked += 1
            assert len(large[0].received) < 100
            assert await ask(peer, asked)
        await all_ended(calls)


async def test_header_frames_that_bring_nothing_end_with_their_connection_only() -> None:
    """HEADERS without an end, and a second block in between: neither opens a stream."""
    async with echo_server(LIMITS) as (server, calls), connected(server.port) as other, connected(server.port) as peer:
        await other.send(opened(GOOD))
        await peer.send(HeadersFrame(1, b"").serialize() + HeadersFrame(3, b"").serialize())
        await peer.until(lambda: peer.closed)
        assert isinstance(peer.frames[-1], GoAwayFrame) and peer.frames[-1].error_code == 1
        assert await ask(other, 0)
        assert len(calls.made) == 1
