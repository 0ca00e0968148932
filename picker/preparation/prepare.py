"""Runs the data producers that ask somebody else about a request, before endpoints are looked at.

All of one request at the same time, but for those that consume what another one produces; each with its own timeout. What fails is
counted and logged, and the request goes on without it.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence
from itertools import chain
from time import perf_counter
from typing import Any

from picker.metrics import Metrics
from picker.plugin import AsyncDataProducer
from picker.request import InferenceRequest
from picker.tasks import TaskOwner
from picker.timing import DATA_PRODUCER, timer

log = logging.getLogger(__name__)

DEFAULT_TIMEOUT_S = 0.4
"""Of a producer that names none (contract section 1.7)."""
MAX_REQUESTS = 1024
"""In preparation at a time; each holds its body. The next ones go on without being prepared."""
_LOG_EVERY_S = 10.0


class Preparation:
    """The director's `Prepare`. Bound to the running loop when the first request comes."""

    def __init__(self, producers: Sequence[AsyncDataProducer], metrics: Metrics, *, max_requests: int = MAX_REQUESTS) -> None:
        """`producers` in an order in which each comes after those that produce what it consumes."""
        self._waves = [[_Producer(producer, metrics) for producer in wave] for wave in _waves(producers)]
        self._max_requests = max_requests
        self._tasks = TaskOwner()
        self._open = metrics.preparing.cell()

    def __call__(self, request: InferenceRequest, done: Callable[[], None]) -> Callable[[], None]:
        """`done` is called once, perhaps before this returns, unless what is returned is called first."""
        asked = [wanted for wave in self._waves if (wanted := [producer for producer in wave if producer.wants(request)])]
        if not asked:
            done()
            return _nothing
        if self._open.value >= self._max_requests:
            for producer in chain.from_iterable(asked):
                producer.failed("busy", f"{self._max_requests} requests are being prepared")
            done()
            return _nothing
        self._open.value += 1
        task = self._tasks.spawn(self._prepare(asked, request, done), f"prepare {request.request_id[:64]}")
        # Not in the coroutine: one that is cancelled before its first step runs none of its code.
        task.add_done_callback(self._ended)
        return lambda: _cancel(task)

    def _ended(self, task: asyncio.Task[Any]) -> None:
        self._open.value -= 1

    async def _prepare(self, asked: Sequence[Sequence[_Producer]], request: InferenceRequest, done: Callable[[], None]) -> None:
        for wave in asked:
            if len(wave) == 1:
                await wave[0].ask(request)
            else:
                await asyncio.gather(*[producer.ask(request) for producer in wave])
        done()

    async def ended(self) -> None:
        """Wait until no request is in preparation. Once a reload has taken its place, no other one comes."""
        await self._tasks.ended()

    @property
    def open(self) -> bool:
        """Whether a request is in preparation."""
        return self._tasks.running > 0

    async def cancel(self) -> None:
        """End what is still asked."""
        await self._tasks.close("the picker stops")

    async def close(self) -> None:
        """End what is still asked, then the producers' connections. The requests that wait are not told."""
        await self.cancel()
        for producer in chain.from_iterable(self._waves):
            await producer.close()


def _waves(producers: Sequence[AsyncDataProducer]) -> list[list[AsyncDataProducer]]:
    """Those that can be asked at the same time."""
    waves: list[list[AsyncDataProducer]] = []
    wave_of: dict[str, int] = {}
    for producer in producers:
        number = max([wave_of.get(key, -1) for key in getattr(producer, "consumes", ())], default=-1) + 1
        if number == len(waves):
            waves.append([])
        waves[number].append(producer)
        for key in producer.produces:
            wave_of[key] = max(number, wave_of.get(key, -1))
    return waves


class _Producer:
    """A producer with its timeout and its failures."""

    def __init__(self, plugin: AsyncDataProducer, metrics: Metrics) -> None:
        self._plugin = plugin
        self._name: str = getattr(plugin, "name", type(plugin).__name__)
        self._type: str = getattr(plugin, "type", type(plugin).__name__)
        self._timeout_s: float = getattr(plugin, "timeout_s", DEFAULT_TIMEOUT_S)
        self._wants: Callable[[InferenceRequest], bool] | None = getattr(plugin, "wants", None)
        self._failures = metrics.preparation_failures
        self._took = timer(metrics, DATA_PRODUCER, plugin)
        self._logged_s = float("-inf")
        self._unlogged = 0

    def wants(self, request: InferenceRequest) -> bool:
        try:
            return self._wants is None or self._wants(request)
        except Exception as error:
            self.failed("error", repr(error))
            return False

    async def ask(self, request: InferenceRequest) -> None:
        """Raises nothing but CancelledError."""
        began = perf_counter()
        try:
            async with asyncio.timeout(self._timeout_s) as limit:
                await self._plugin.prepare(request)
        except TimeoutError as error:
            # The producer may have limits of its own.
            self.failed("timeout", f"nothing within {self._timeout_s:g} s" if limit.expired() else str(error) or "timeout")
        except Exception as error:
            self.failed("error", f"{type(error).__name__}: {error}")
        finally:
            self._took.observe(perf_counter() - began)

    def failed(self, reason: str, detail: str) -> None:
        """Count, and log now and then: when a tokenizer is down, every request finds out."""
        self._failures.cell(self._name, self._type, reason).value += 1
        now_s = asyncio.get_running_loop().time()
        if now_s - self._logged_s < _LOG_EVERY_S:
            self._unlogged += 1
            return
        log.warning("a request goes on without the data of %s (%d more before): %s", self._name, self._unlogged, detail)
        self._logged_s, self._unlogged = now_s, 0

    async def close(self) -> None:
        close = getattr(self._plugin, "close", None)
        if close is not None:
            await close()


def _cancel(task: asyncio.Task[Any]) -> None:
    task.cancel("the client has left")


def _nothing() -> None:
    pass
