"""Polls every endpoint for one source at a fixed interval. The metrics source has a pace of its own: see `picker.datalayer.scraper`."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Sequence
from functools import partial

from picker.datalayer.datastore import Datastore, EndpointState
from picker.datalayer.http_reader import CallLater, Done, ReadError, Timer
from picker.datalayer.poller import Reader
from picker.datalayer.throttle import Throttle
from picker.endpoint import Endpoint
from picker.plugin import DataSource

log = logging.getLogger(__name__)

_GOLDEN = 0.618033988749895
_FIRST_WITHIN_S = 1.0
"""An endpoint is asked for the first time within a second, whatever the interval; a failed poll is followed up as soon, then doubling."""


class SourcePolling:
    """Follows the datastore with one chain of reads per endpoint, never overlapping. What fails leaves what is known as it is."""

    def __init__(
        self,
        datastore: Datastore,
        source_name: str,
        *,
        interval_s: float,
        reader: Callable[[Endpoint], Reader],
        on_body: Callable[[EndpointState, bytes], None],
        on_error: Callable[[], None],
        now: Callable[[], float] = time.monotonic,
        call_later: CallLater | None = None,
    ) -> None:
        """`on_body` is handed what was read, `on_error` hears of each poll that failed."""
        self._datastore = datastore
        self._name = source_name
        self._interval_s = interval_s
        self._reader = reader
        self._on_body = on_body
        self._on_error = on_error
        self._throttle = Throttle(now=now)
        self._call_later = call_later
        self._chains: dict[EndpointState, _Chain] = {}
        self._unsubscribe: Callable[[], None] | None = None
        self._started = 0

    def start(self) -> None:
        """Begin with the endpoints that are there, on the running loop."""
        if self._unsubscribe is None:
            self._unsubscribe = self._datastore.subscribe(self._follow)

    async def stop(self) -> None:
        """End all polling; on return no task, timer or connection is left."""
        if self._unsubscribe is not None:
            self._unsubscribe()
            self._unsubscribe = None
        chains = list(self._chains.values())
        self._chains.clear()
        for chain in chains:
            chain.stop()
        await asyncio.gather(*[chain.reader.wait_closed() for chain in chains])

    def _follow(self, added: Sequence[EndpointState], removed: Sequence[EndpointState]) -> None:
        for state in removed:
            chain = self._chains.pop(state, None)
            if chain is not None:
                chain.stop()
        call_later = self._call_later or asyncio.get_running_loop().call_later
        for state in added:
            phase = self._started * _GOLDEN % 1.0
            self._started += 1
            chain = self._chains[state] = _Chain(self._reader(state.endpoint), self._interval_s, partial(self._take, state), call_later)
            chain.start(phase)

    def _take(self, state: EndpointState, result: bytes | ReadError) -> None:
        if not isinstance(result, ReadError):
            self._on_body(state, result)
            return
        self._on_error()
        held = self._throttle.held
        if self._throttle.ready():
            more = f" ({held} more since the last such line)" if held else ""
            log.warning("source %s: endpoint %s at %s: %s%s", self._name, state.endpoint, state.endpoint.host_port, result, more)


class _Chain:
    """Read, hand over, wait, read again."""

    __slots__ = ("_call_later", "_interval_s", "_pause_s", "_stopped", "_take", "_timer", "reader")

    def __init__(self, reader: Reader, interval_s: float, take: Done, call_later: CallLater) -> None:
        self.reader = reader
        self._interval_s = interval_s
        self._take = take
        self._call_later = call_later
        self._timer: Timer | None = None
        self._pause_s = min(interval_s, _FIRST_WITHIN_S)
        self._stopped = False

    def start(self, phase: float) -> None:
        self._timer = self._call_later(phase * self._pause_s, self._begin)

    def stop(self) -> None:
        self._stopped = True
        if self._timer is not None:
            self._timer.cancel()
        self.reader.close()

    def _begin(self) -> None:
        self._timer = None
        self.reader.read(self._done)

    def _done(self, result: bytes | ReadError) -> None:
        if self._stopped:
            return
        if isinstance(result, ReadError):
            pause_s, self._pause_s = self._pause_s, min(2 * self._pause_s, self._interval_s)
        else:
            pause_s, self._pause_s = self._interval_s, min(self._interval_s, _FIRST_WITHIN_S)
        self._take(result)
        if not self._stopped:
            self._timer = self._call_later(pause_s, self._begin)


class FetchReader:
    """A DataSource's `fetch` as the reader of one endpoint: a task per read, at most `timeout_s` seconds."""

    def __init__(self, source: DataSource, endpoint: Endpoint, *, timeout_s: float) -> None:
        self._source = source
        self._endpoint = endpoint
        self._timeout_s = timeout_s
        self._task: asyncio.Task[None] | None = None
        self._closed = False

    def watch(self, hung_up: Callable[[], None]) -> None:
        """Nothing is known here of connections."""

    def read(self, done: Done) -> None:
        """Begin a fetch; `done` is called exactly once, later, unless `close` comes first."""
        self._task = asyncio.get_running_loop().create_task(self._fetch(done), name=f"{self._source.name} {self._endpoint}")

    def close(self) -> None:
        """Cancel the fetch under way."""
        self._closed = True
        if self._task is not None:
            self._task.cancel("the endpoint or the source is gone")

    async def wait_closed(self) -> None:
        """After `close`: wait until the fetch has ended."""
        if self._task is not None:
            await asyncio.gather(self._task, return_exceptions=True)

    async def _fetch(self, done: Done) -> None:
        result: bytes | ReadError
        try:
            async with asyncio.timeout(self._timeout_s):
                result = await self._source.fetch(self._endpoint)
            if not isinstance(result, bytes):
                result = ReadError("bad_answer", f"fetch returned {type(result).__name__}, expected bytes")
        except TimeoutError:
            result = ReadError("timeout", f"no answer within {self._timeout_s:g} s")
        except Exception as error:
            result = ReadError("bad_answer", f"{type(error).__name__}: {error}")
        if not self._closed:
            done(result)
