"""`python -m bench.micro.polling`: CPU of watching many endpoints, at the fixed rate and at the adaptive one.

A child process serves the metrics pages of tests/data, so that its CPU is not counted; this process runs the scraper as the picker
does, on uvloop over loopback, and counts its own CPU time and the reads it made. The cases take turns, so that a noisy neighbour
meets them all.
"""

from __future__ import annotations

import argparse
import asyncio
import cProfile
import gc
import pstats
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from statistics import median
from typing import NamedTuple

import uvloop

from bench.micro.child import Helper
from picker.datalayer.datastore import Datastore
from picker.datalayer.pace import Pace
from picker.datalayer.scraper import Scraper
from picker.endpoint import Endpoint

_DATA = Path(__file__).parents[2] / "tests" / "data"
PAGES = {"loaded": "vllm_metrics.txt", "idle": "vllm_metrics_idle.txt"}


class Case(NamedTuple):
    """What is watched and how."""

    name: str
    page: str
    adaptive: bool


CASES = (
    Case("fixed rate, idle servers", "idle", False),
    Case("fixed rate, loaded servers", "loaded", False),
    Case("adaptive, idle servers", "idle", True),
    Case("adaptive, loaded servers", "loaded", True),
)


# ---- the server process ------------------------------------------------------------------------------------------------------


class _PageServer(asyncio.Protocol):
    """Answers whatever comes with one page; requests of the scraper arrive whole."""

    def __init__(self, answer: bytes) -> None:
        self._answer = answer
        self._transport: asyncio.WriteTransport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport  # type: ignore[assignment]

    def data_received(self, data: bytes) -> None:
        assert self._transport is not None
        self._transport.write(self._answer)


async def _serve(page: bytes, count: int) -> None:
    """Prints its ports, and ends with its standard input."""
    answer = b"HTTP/1.1 200 OK\r\ncontent-type: text/plain\r\ncontent-length: %d\r\n\r\n%s" % (len(page), page)
    loop = asyncio.get_running_loop()
    servers = [await loop.create_server(lambda: _PageServer(answer), "127.0.0.1", 0) for _ in range(count)]
    sys.stdout.write(" ".join([str(server.sockets[0].getsockname()[1]) for server in servers]) + "\n")
    sys.stdout.flush()
    ended = asyncio.Event()
    loop.add_reader(sys.stdin.fileno(), ended.set)
    await ended.wait()


class Upstream(Helper):
    """The child process: `ports` of as many servers."""

    def __init__(self, page: str, count: int) -> None:
        super().__init__("bench.micro.polling", "--serve", page, "--endpoints", str(count))
        self.ports = [int(port) for port in self.line().split()]


# ---- the watcher ---------------------------------------------------------------------------------------------------------------


class Result(NamedTuple):
    """`cores` is CPU time over wall time."""

    cores: float
    reads_per_s: float
    us_per_read: float


class _Counting(Datastore):
    """Counts pages taken in."""

    pages = 0

    def report(self, *arguments: object) -> bool:
        self.pages += 1
        return super().report(*arguments)  # type: ignore[arg-type]


async def _watch(case: Case, ports: Sequence[int], warm_up_s: float, seconds: float, profile: cProfile.Profile | None) -> Result:
    datastore = _Counting()
    datastore.set_endpoints("bench", [Endpoint(f"e{n}", "127.0.0.1", port) for n, port in enumerate(ports)])
    scraper = Scraper(datastore, pace=Pace(adaptive=case.adaptive))
    scraper.start()
    await asyncio.sleep(warm_up_s)
    gc.collect()
    await asyncio.sleep(0.2)  # what became due meanwhile is not of this round
    if profile is not None:
        profile.enable()
    pages, cpu_s, wall_s = datastore.pages, time.process_time(), time.perf_counter()
    await asyncio.sleep(seconds)
    spent_s, took_s, reads = time.process_time() - cpu_s, time.perf_counter() - wall_s, datastore.pages - pages
    if profile is not None:
        profile.disable()
    await scraper.stop()
    return Result(spent_s / took_s, reads / took_s, spent_s / max(1, reads) * 1e6)


def main(argv: Sequence[str] | None = None) -> int:
    """Exit status 0."""
    parser = argparse.ArgumentParser(prog="python -m bench.micro.polling", description=__doc__, allow_abbrev=False)
    parser.add_argument("--endpoints", type=int, default=100, metavar="N", help="(default: %(default)s)")
    parser.add_argument("--seconds", type=float, default=5.0, metavar="S", help="per round (default: %(default)s)")
    parser.add_argument("--warm-up", type=float, default=3.0, metavar="S", help="before each round, until paces are found (default: 3)")
    parser.add_argument("--rounds", type=int, default=5, metavar="N", help="(default: %(default)s)")
    parser.add_argument("--only", default="", metavar="TEXT", help="only cases whose name contains TEXT")
    parser.add_argument("--profile", action="store_true", help="print where the time goes")
    parser.add_argument("--serve", choices=sorted(PAGES), help=argparse.SUPPRESS)
    flags = parser.parse_args(argv)
    if flags.serve:
        uvloop.run(_serve((_DATA / PAGES[flags.serve]).read_bytes(), flags.endpoints))
        return 0
    cases = [case for case in CASES if flags.only in case.name]
    profile = cProfile.Profile() if flags.profile else None
    upstreams = {page: Upstream(page, flags.endpoints) for page in {case.page for case in cases}}
    try:
        rounds: dict[Case, list[Result]] = {case: [] for case in cases}
        for _ in range(flags.rounds):
            for case in cases:
                watch = _watch(case, upstreams[case.page].ports, flags.warm_up, flags.seconds, profile)
                rounds[case].append(uvloop.run(watch))
    finally:
        for upstream in upstreams.values():
            upstream.stop()
    sys.stdout.write(f"{flags.endpoints} endpoints              cores    reads/s    CPU us/read   (medians)\n")
    for case in cases:
        middle = Result(*[median(values) for values in zip(*rounds[case], strict=True)])
        sys.stdout.write(f"{case.name:28} {middle.cores:7.4f} {middle.reads_per_s:10.0f} {middle.us_per_read:14.1f}\n")
    if profile is not None:
        pstats.Stats(profile).sort_stats("tottime").print_stats(30)
    return 0


if __name__ == "__main__":
    sys.exit(main())
