"""One cell: an arm under a workload, from a fresh start to numbers, or to the reason why there are none."""

from __future__ import annotations

import asyncio
import traceback
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass

import msgspec

from bench.extproc.arms import Arm, Kind
from bench.extproc.client import Job, Outcome
from bench.extproc.generators import Generator
from bench.extproc.lab import Lab
from bench.extproc.meter import SERVER, Meter
from bench.extproc.profiler import Profiler
from bench.extproc.stack import Stack
from bench.extproc.statistics import Cell
from bench.extproc.workloads import Load, Workload
from bench.http import sample_lag
from bench.processes import PATIENCE_S, Child, Failed, python

_STAGGER_S = 1.0
# For everything that is not load: starts, probes, ends.
_OVERHEAD_S = 90.0


@dataclass(frozen=True, slots=True)
class Options:
    """Of all cells. `client`: what sends simple closed loops."""

    seconds: float
    client: str


async def measure(lab: Lab, arm: Arm, workload: Workload, number: int, options: Options, profiler: Profiler | None = None) -> Cell:
    """Never raises for a cell that fails: the cell says so."""
    cell = Cell(arm=arm.name, workload=workload.name, round=number)
    limit_s = workload.warmup_s + options.seconds + _OVERHEAD_S
    try:
        async with asyncio.timeout(limit_s):
            await lab.prepare(workload)
            async with Stack(lab, arm, workload, watch=profiler is None) as stack:
                await _Measurement(lab, stack, workload, options, profiler).run(cell)
    except TimeoutError:
        cell.failed = f"not done after {limit_s:g} s"
    except (Failed, OSError) as error:
        cell.failed = str(error)
    except Exception as error:
        # A defect of ours: to be seen, but the cells that were measured before are not lost with it.
        traceback.print_exc()
        cell.failed = f"the bench itself failed: {type(error).__name__}: {error}"
    if cell.failed is not None and (complaint := lab.upstream.tail()):
        cell.failed += f"; the model servers say: {complaint}"
    return cell


class _Measurement:
    def __init__(self, lab: Lab, stack: Stack, workload: Workload, options: Options, profiler: Profiler | None) -> None:
        self._lab = lab
        self._stack = stack
        self._workload = workload
        self._options = options
        self._profiler = profiler
        self._lags_ms: list[float] = []
        self._values: dict[str, float] = {}

    async def run(self, cell: Cell) -> None:
        """Fill the cell."""
        load = self._workload.load
        if load is None:
            outcome = await self._idle()
        elif load.simple and self._options.client != "own":
            outcome = await self._generated(load)
        else:
            outcome = await self._ours(load)
        self._stack.check()
        late_ms = await self._lab.prepare(self._workload)
        if outcome.errors:
            raise Failed(", ".join(f"{what} ({count} times)" for what, count in outcome.errors.items()))
        if load is not None and not (outcome.events if self._workload.per_event else outcome.requests):
            raise Failed("not one answer came")
        if self._workload.streamed:
            self._values["upstream_late_ms"] = late_ms
        cell.values = self._values | from_outcome(outcome, self._values, per_event=self._workload.per_event)
        cell.lags_ms = self._lags_ms

    # ---- the three kinds of load -------------------------------------------------------------------------------------------------

    async def _idle(self) -> Outcome:
        await asyncio.sleep(self._workload.warmup_s)
        async with self._measured():
            await asyncio.sleep(self._options.seconds)
        return Outcome(self._options.seconds)

    async def _generated(self, load: Load) -> Outcome:
        generator = Generator(self._options.client, self._lab.folder, self._stack.ports.listen, load.prompt_bytes, load.concurrency)
        async with self._lag_sampled():
            warmup = await generator.run(self._workload.warmup_s)
        async with self._measured():
            outcome = await generator.run(self._options.seconds)
        outcome.errors |= {f"in the warm-up: {what}": count for what, count in warmup.errors.items()}
        return outcome

    async def _ours(self, load: Load) -> Outcome:
        workload = self._workload
        job = Job(
            port=self._stack.ports.listen,
            prompt_bytes=load.prompt_bytes,
            prompts=load.prompts,
            concurrency=load.concurrency,
            rate_per_s=load.rate_per_s,
            events=workload.answer.events,
            warmup_s=workload.warmup_s,
            seconds=self._options.seconds,
            stagger_s=min(_STAGGER_S, workload.answer.events * workload.answer.pace_ms / 1e3),
        )
        command = python("bench.extproc.client", msgspec.json.encode(job).decode())
        async with Child("client", command, self._lab.folder, pipes=True) as client:
            await self._expect(client, "load", PATIENCE_S)
            async with self._lag_sampled():
                await self._expect(client, "begin", job.warmup_s + PATIENCE_S)
            async with self._measured(client):
                await self._expect(client, "end", job.seconds + PATIENCE_S)
            return msgspec.json.decode(await client.line(), type=Outcome)

    @staticmethod
    async def _expect(client: Child, word: str, patience_s: float) -> None:
        line = await client.line(patience_s)
        if line != word:
            raise Failed(f"the client said {line!r}, not {word!r}")

    # ---- what is measured around them --------------------------------------------------------------------------------------------

    @asynccontextmanager
    async def _lag_sampled(self) -> AsyncIterator[None]:
        """In the warm-up only: answering costs the picker CPU, which would count as that of the requests."""
        if self._stack.arm.kind is not Kind.PICKER:
            yield
            return
        sampling = asyncio.create_task(sample_lag(self._stack.ports.metrics, "/healthz", self._workload.warmup_s * 0.9))
        try:
            yield
            self._lags_ms = await sampling
        except OSError as error:
            raise Failed(f"the picker's side door: {error}") from None
        finally:
            sampling.cancel()

    @asynccontextmanager
    async def _measured(self, client: Child | None = None) -> AsyncIterator[None]:
        """What happens within is the result."""
        stack, seconds = self._stack, self._options.seconds
        children = {SERVER: stack.server, "envoy": stack.envoy, "upstream": self._lab.upstream, "client": client}
        meter = Meter({name: child for name, child in children.items() if child is not None}, watched=stack.is_watched)
        recording = None
        if self._profiler is not None and stack.server is not None:
            recording = asyncio.create_task(self._profiler.record(stack.server.pid, seconds))
        async with meter.running():
            yield
        self._values = meter.values
        if recording is not None:
            await recording


def from_outcome(outcome: Outcome, spent: Mapping[str, float], *, per_event: bool) -> dict[str, float]:
    """What follows from what the client saw and what was spent meanwhile."""
    values: dict[str, float] = {"seconds": outcome.seconds, "requests": outcome.requests, "events": outcome.events}
    unit, count = ("event", outcome.events) if per_event else ("request", outcome.requests)
    if count:
        values[f"{unit}s_per_s"] = count / outcome.seconds
        for who in ("picker", "envoy"):
            if f"{who}_cpu_s" in spent:
                values[f"{who}_us_per_{unit}"] = spent[f"{who}_cpu_s"] / count * 1e6
    if "picker_cpu_s" in spent and spent.get("envoy_cpu_s"):
        values["picker_to_envoy"] = spent["picker_cpu_s"] / spent["envoy_cpu_s"]
    if outcome.reads and outcome.events:
        values["events_per_read"] = outcome.events / outcome.reads
    if outcome.requests and "gc_collections" in spent:
        values["gc_per_1000_requests"] = spent["gc_collections"] / outcome.requests * 1e3
        values["blocks_more_per_request"] = spent["blocks_more"] / outcome.requests
    return values | outcome.latencies
