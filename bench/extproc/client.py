"""`python -m bench.extproc.client JOB`: the client for what load generators cannot do, as cheap as Python allows.

Requests are made beforehand and sent over HTTP/1.1 keep-alive connections. It prints `load` when it begins, `begin` after the
warm-up, `end` when the measured time is over, and then what it saw between the last two as one JSON object.
"""

from __future__ import annotations

import asyncio
import sys
from collections import Counter, deque
from time import perf_counter
from typing import cast

import httptools
import msgspec

from bench.extproc.bodies import chat_bodies, http_request
from bench.extproc.statistics import latencies, percentile

MAX_CONNECTIONS = 1024
PATIENCE_S = 20.0


class Job(msgspec.Struct, frozen=True):
    """Closed loop with `concurrency` connections, or open loop at `rate_per_s` when that is not 0. `events` 0: a JSON answer.

    The first requests of a closed loop are spread over `stagger_s`.
    """

    port: int
    prompt_bytes: int
    prompts: int
    concurrency: int
    rate_per_s: float
    events: int
    warmup_s: float
    seconds: float
    stagger_s: float


class Outcome(msgspec.Struct):
    """What was seen in `seconds`. Latency: to the first event of a stream, to the end of another answer.

    In an open loop it counts from when the request was due; `late_p99_ms` is how long after that it was written.
    """

    seconds: float
    requests: int = 0
    events: int = 0
    reads: int = 0
    latencies: dict[str, float] = {}
    errors: dict[str, int] = {}


class Client:
    """The counters, and the pool of idle connections."""

    def __init__(self, job: Job) -> None:
        self.job = job
        self.loop = asyncio.get_running_loop()
        authority = f"127.0.0.1:{job.port}"
        bodies = chat_bodies(job.prompt_bytes, job.prompts, stream=job.events > 0)
        self._requests = [http_request(authority, body) for body in bodies]
        self._turn = 0
        self.idle: deque[Connection] = deque()
        self.connections: set[Connection] = set()
        self._opening = 0
        self.over = False
        self.clear()

    def clear(self) -> None:
        """Count from here on."""
        self.latencies_s: list[float] = []
        self.late_s: list[float] = []
        self.errors: Counter[str] = Counter()
        self.requests = self.events = self.reads = 0

    def next_request(self) -> bytes:
        """The bodies take turns."""
        self._turn = (self._turn + 1) % len(self._requests)
        return self._requests[self._turn]

    async def connect(self) -> Connection:
        """One more. Raises OSError."""
        _, connection = await self.loop.create_connection(lambda: Connection(self), "127.0.0.1", self.job.port)
        return connection

    async def run(self) -> Outcome:
        """Warm up, measure, and cut what is open."""
        job = self.job
        for _ in range(job.concurrency):
            self.idle.append(await self.connect())
        _say("load")
        if job.rate_per_s:
            self._due_s = perf_counter() + 0.05
            self.loop.call_later(0.05, self._beat)
        else:
            for i, connection in enumerate(tuple(self.idle)):
                self.loop.call_later(job.stagger_s * i / job.concurrency, connection.begin)
            self.idle.clear()
        await asyncio.sleep(job.warmup_s)
        failed = self.errors
        self.clear()
        started_s = perf_counter()
        _say("begin")
        await asyncio.sleep(job.seconds)
        seconds = perf_counter() - started_s
        _say("end")
        self.over = True
        for connection in self.connections:
            if connection.busy and perf_counter() - connection.begun_s > PATIENCE_S:
                self.errors[f"no answer for {PATIENCE_S:g} s"] += 1
        found = Outcome(seconds, self.requests, self.events, self.reads, errors=dict(failed + self.errors))
        found.latencies = latencies(self.latencies_s)
        if self.late_s:
            found.latencies["late_p99_ms"] = percentile(self.late_s, 99) * 1e3
        for connection in self.connections:
            connection.abort()
        return found

    def finished(self, connection: Connection) -> None:
        """The connection has its answer."""
        if self.over:
            return
        if self.job.rate_per_s:
            self.idle.append(connection)
        else:
            # Not from inside the parser, which still has the last answer in hand.
            self.loop.call_soon(connection.begin)

    def _beat(self) -> None:
        """Send all that is due."""
        now_s = perf_counter()
        while self._due_s <= now_s:
            if self.idle:
                self.idle.pop().begin(self._due_s)
            elif len(self.connections) + self._opening < MAX_CONNECTIONS:
                self._opening += 1
                task = self.loop.create_task(self._begin_on_another(self._due_s))
                task.add_done_callback(_raise)
            else:
                self.errors[f"all {MAX_CONNECTIONS} connections wait for an answer"] += 1
            self._due_s += 1 / self.job.rate_per_s
        if not self.over:
            self.loop.call_later(max(0.0, self._due_s - perf_counter()), self._beat)

    async def _begin_on_another(self, due_s: float) -> None:
        try:
            connection = await self.connect()
        except OSError as error:
            self.errors[f"cannot connect: {error.strerror}"] += 1
        else:
            connection.begin(due_s)
        finally:
            self._opening -= 1


class Connection(asyncio.Protocol):
    """One request at a time."""

    def __init__(self, client: Client) -> None:
        self._client = client
        self._parser = httptools.HttpResponseParser(self)
        self._transport: asyncio.Transport | None = None
        self.busy = False
        self.begun_s = 0.0
        self._newlines = 0
        self._first = True

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Part of asyncio.Protocol."""
        self._transport = cast(asyncio.Transport, transport)
        self._client.connections.add(self)

    def begin(self, due_s: float | None = None) -> None:
        """Send the next request. `due_s`: when it should have been sent."""
        client = self._client
        if self._transport is None:
            # Closed between two requests: a proxy may do that.
            client.errors["the connection was closed between two requests"] += 1
            return
        self.begun_s = perf_counter()  # the loop's own clock ticks in whole milliseconds
        if due_s is not None:
            client.late_s.append(self.begun_s - due_s)
            self.begun_s = due_s
        self.busy, self._first, self._newlines = True, True, 0
        self._transport.write(client.next_request())

    def data_received(self, data: bytes) -> None:
        """Part of asyncio.Protocol."""
        self._client.reads += 1
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserError as error:
            self._client.errors[f"not HTTP: {error}"] += 1
            self.abort()

    def on_body(self, body: bytes) -> None:
        """Called by the parser."""
        client = self._client
        if self._first:
            self._first = False
            if client.job.events:
                client.latencies_s.append(perf_counter() - self.begun_s)
        if client.job.events:
            events = self._newlines // 2
            self._newlines += body.count(b"\n")
            client.events += self._newlines // 2 - events

    def on_message_complete(self) -> None:
        """Called by the parser."""
        client = self._client
        self.busy = False
        status = self._parser.get_status_code()
        if status != 200:
            client.errors[f"status {status}"] += 1
        elif client.job.events and self._newlines != 2 * client.job.events:
            client.errors[f"{self._newlines / 2:g} events in place of {client.job.events}"] += 1
        else:
            client.requests += 1
            if not client.job.events:
                client.latencies_s.append(perf_counter() - self.begun_s)
        if not self._parser.should_keep_alive():
            self.abort()
        client.finished(self)

    def connection_lost(self, exc: Exception | None) -> None:
        """Part of asyncio.Protocol."""
        client = self._client
        self._transport = None
        client.connections.discard(self)
        if self in client.idle:
            client.idle.remove(self)
        if self.busy and not client.over:
            self.busy = False
            client.errors["the connection was lost before the answer was complete"] += 1
            if not client.job.rate_per_s:
                client.loop.create_task(self._replace()).add_done_callback(_raise)

    async def _replace(self) -> None:
        try:
            (await self._client.connect()).begin()
        except OSError as error:
            self._client.errors[f"cannot connect: {error.strerror}"] += 1

    def abort(self) -> None:
        """Cut the connection."""
        if self._transport is not None:
            self._transport.abort()


def _raise(task: asyncio.Task[None]) -> None:
    task.result()


def _say(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


async def _main(job: Job) -> None:
    _say(msgspec.json.encode(await Client(job).run()).decode())


def main() -> int:
    """Exit status 0."""
    import uvloop

    uvloop.run(_main(msgspec.json.decode(sys.argv[1].encode(), type=Job)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
