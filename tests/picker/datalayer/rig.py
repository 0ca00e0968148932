"""Pollers in virtual time: a clock that is moved by hand, readers that answer as told."""

from __future__ import annotations

import heapq
import itertools
from collections.abc import Callable

from picker.datalayer.datastore import Datastore, EndpointState
from picker.datalayer.http_reader import Done, ReadError, ReadErrorKind
from picker.datalayer.pace import Pace
from picker.datalayer.scraper import Scraper
from picker.endpoint import Endpoint

PAGE = b"vllm:num_requests_waiting 3\nvllm:num_requests_running 2\n"
DEAD = ReadError("unreachable", "refused")
SLOW = ReadError("timeout", "no answer")
MISSING = ReadError("bad_answer", "status 404", status=404)
BUSY = ReadError("bad_answer", "status 503", status=503)
GARBAGE = ReadError("bad_answer", "not HTTP")


class Clock:
    """Virtual monotonic time; `run` moves it from timer to timer."""

    def __init__(self) -> None:
        self.now_s = 0.0
        self._queue: list[tuple[float, int, ClockTimer]] = []
        self._count = 0

    def now(self) -> float:
        return self.now_s

    def call_later(self, delay_s: float, call: Callable[[], None]) -> ClockTimer:
        assert delay_s >= 0
        self._count += 1
        timer = ClockTimer(call)
        heapq.heappush(self._queue, (self.now_s + delay_s, self._count, timer))
        return timer

    def run(self, seconds: float) -> None:
        end_s = self.now_s + seconds
        while self._queue and self._queue[0][0] <= end_s + 1e-9:
            due_s, _, timer = heapq.heappop(self._queue)
            self.now_s = max(self.now_s, due_s)
            if not timer.cancelled:
                timer.call()
        self.now_s = end_s

    def stall(self, seconds: float) -> None:
        """Nothing runs for so long; what was due meanwhile runs late."""
        self.now_s += seconds

    @property
    def pending(self) -> int:
        return sum(not timer.cancelled for _, _, timer in self._queue)


class ClockTimer:
    def __init__(self, call: Callable[[], None]) -> None:
        self.call = call
        self.cancelled = False

    def cancel(self) -> None:
        self.cancelled = True


class FakeReader:
    """Answers each read with `answer` after `delay_s`, and notes when reads began."""

    def __init__(self, clock: Clock) -> None:
        self.clock = clock
        self.answer: bytes | ReadError = PAGE
        self.delay_s = 0.0
        self.begun: list[float] = []
        self.open = 0
        self.closed = False
        self.hang_up: Callable[[], None] = lambda: None

    def read(self, done: Done) -> None:
        assert self.open == 0, "reads overlap"
        self.open += 1
        self.begun.append(round(self.clock.now_s, 6))

        def end() -> None:
            self.open -= 1
            done(self.answer)

        self.clock.call_later(self.delay_s, end)

    def watch(self, hung_up: Callable[[], None]) -> None:
        self.hang_up = hung_up

    def close(self) -> None:
        self.closed = True

    async def wait_closed(self) -> None: ...


class Rig:
    """Endpoints polled in virtual time, every 0.1 s; most tests have one."""

    def __init__(self, endpoints: int = 1, *, adaptive: bool = True) -> None:
        self.clock = Clock()
        self.datastore = Datastore(now=self.clock.now)
        self.readers: list[FakeReader] = []
        self.errors: list[ReadErrorKind] = []
        self.extract_errors = 0
        self.scraper = Scraper(
            self.datastore,
            pace=Pace(interval_s=0.1, adaptive=adaptive),
            now=self.clock.now,
            call_later=self.clock.call_later,
            reader=self._reader,
            on_error=self.errors.append,
            on_extract_error=self._extract_error,
        )
        self.datastore.set_endpoints("t", [Endpoint(f"e{n}", "127.0.0.1", 8000 + n) for n in range(endpoints)])
        self.scraper.start()

    def _reader(self, endpoint: Endpoint) -> FakeReader:
        self.readers.append(FakeReader(self.clock))
        return self.readers[-1]

    def _extract_error(self) -> None:
        self.extract_errors += 1

    @property
    def reader(self) -> FakeReader:
        return self.readers[0]

    @property
    def state(self) -> EndpointState:
        return next(iter(self.datastore.states()))

    def gaps(self) -> list[float]:
        """Seconds between the reads begun since the last call."""
        begun = self.reader.begun
        found = [round(b - a, 6) for a, b in itertools.pairwise(begun)]
        del begun[:-1]
        return found
