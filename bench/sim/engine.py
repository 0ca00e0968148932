"""The engine: waiting and running sequences, advanced step by step. No clock, no I/O: the caller says what time it is."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field

from bench.sim.kv_cache import KvCache
from bench.sim.latency import Latency
from bench.sim.load import Load
from bench.sim.lora import LoraSlots
from bench.sim.metrics import Metrics
from bench.sim.sequence import FinishReason, Sequence
from bench.sim.settings import Settings


@dataclass(slots=True)
class Step:
    """One step: how many tokens of which sequence. Without work, it only lasts until a sequence becomes ready."""

    budget: int
    ends_at: float = 0.0
    work: list[tuple[Sequence, int]] = field(default_factory=list)
    prefill_tokens: int = 0
    decodes: int = 0


class Engine:
    """First come, first served, as vLLM schedules: running sequences first, then waiting ones, within a token budget."""

    def __init__(self, settings: Settings, metrics: Metrics) -> None:
        self._max_num_seqs = settings.max_num_seqs
        self._budget = settings.max_num_batched_tokens
        self._latency = Latency(settings)
        self._metrics = metrics
        self._kv = KvCache(settings.usable_blocks, settings.block_size, prefix_caching=settings.enable_prefix_caching)
        self._lora = LoraSlots(settings.max_loras)
        self._waiting: deque[Sequence] = deque()
        self._running: list[Sequence] = []

    def load(self) -> Load:
        """A snapshot for gauges and load reports."""
        deferred = sum(1 for sequence in self._waiting if not self._lora.may_run(sequence.adapter))
        return Load(len(self._running), len(self._waiting), deferred, self._kv.usage)

    def add(self, sequence: Sequence, now: float) -> None:
        """Queue a sequence; it is admitted by a later step."""
        sequence.arrived_at = now
        self._waiting.append(sequence)
        self._lora.queued(sequence.adapter)
        self._report_lora(sequence)

    def abort(self, sequence: Sequence, now: float) -> None:
        """End a sequence at once, wherever it is; its slot and blocks are free when this returns."""
        if sequence.finished is not None:
            return
        if sequence in self._running:
            self._running.remove(sequence)
            self._stop(sequence)
        else:
            self._waiting.remove(sequence)
            self._lora.unqueued(sequence.adapter)
        self._finish(sequence, "abort", now)

    def reset_prefix_cache(self) -> None:
        """Forget cached blocks that no sequence holds."""
        self._kv.forget()

    def begin_step(self, now: float) -> Step | None:
        """Decide what the step that starts at `now` computes and when it ends; None when there is nothing to do."""
        step = Step(budget=self._budget)
        preempted = self._plan(step, 0, now)
        if not preempted:
            first_new = len(self._running)
            self._admit(now)
            self._plan(step, first_new, now)
        if step.work:
            step.ends_at = now + self._latency.step(step.prefill_tokens, step.decodes, len(self._running))
            return step
        if self._running:
            step.ends_at = min(sequence.ready_at for sequence in self._running)
            return step
        return None

    def end_step(self, step: Step) -> None:
        """Apply what the step computed: tokens appear, sequences end. Those aborted meanwhile are left alone."""
        now = step.ends_at
        produced = 0
        ended = False
        for sequence, tokens in step.work:
            if sequence.finished is not None:
                continue
            before = sequence.computed
            sequence.computed = before + tokens
            self._kv.fill(sequence.blocks, sequence.hashes, before, sequence.computed)
            if sequence.pending:
                continue
            if sequence.output_length:
                produced += 1
                self._produce(sequence, now)
            if sequence.produced >= sequence.output_length:
                self._stop(sequence)
                self._finish(sequence, sequence.ends_with, now)
                ended = True
            else:
                sequence.notify()
        if ended:
            self._running = [sequence for sequence in self._running if sequence.finished is None]
        if step.work:
            self._metrics.step(generated=produced, scheduled=step.prefill_tokens + step.decodes)

    def _plan(self, step: Step, start: int, now: float) -> bool:
        """Put the running sequences from `start` on into the step; True if one had to be preempted for lack of blocks."""
        preempted = False
        index = start
        while index < len(self._running) and step.budget:
            sequence = self._running[index]
            index += 1
            if sequence.ready_at > now:
                continue
            tokens = min(sequence.pending, step.budget)
            while not self._kv.grow(sequence.blocks, sequence.computed + tokens):
                preempted = True
                # The newest goes first. It cannot be in the step yet, as those come before this one.
                if self._preempt_newest() is sequence:
                    return preempted
            step.budget -= tokens
            step.work.append((sequence, tokens))
            if sequence.produced and tokens == 1:
                step.decodes += 1
            else:
                step.prefill_tokens += tokens
        return preempted

    def _admit(self, now: float) -> None:
        """Move waiting sequences to running, in order. One without a LoRA slot is passed over, one without blocks stops it."""
        passed_over: list[Sequence] = []
        while self._waiting and len(self._running) < self._max_num_seqs:
            sequence = self._waiting.popleft()
            if not self._lora.may_run(sequence.adapter):
                passed_over.append(sequence)
                continue
            cached = self._kv.admit(sequence.blocks, sequence.hashes, sequence.length)
            if cached is None:
                self._waiting.appendleft(sequence)
                break
            self._start(sequence, cached, now)
        self._waiting.extendleft(reversed(passed_over))

    def _start(self, sequence: Sequence, cached: int, now: float) -> None:
        self._running.append(sequence)
        self._lora.unqueued(sequence.adapter)
        self._lora.started(sequence.adapter)
        self._report_lora(sequence)
        sequence.computed = cached
        sequence.ready_at = now
        if sequence.admitted_at is None:
            # Steps start where the last one ended, which may be a moment before this request came in.
            sequence.admitted_at = max(now, sequence.arrived_at)
            sequence.ready_at = sequence.admitted_at + self._latency.before_prefill(len(self._running))
            sequence.cached = cached
            self._metrics.admitted(queries=sequence.prompt_length, hits=cached)

    def _produce(self, sequence: Sequence, now: float) -> None:
        sequence.produced += 1
        if sequence.first_token_at is None:
            sequence.first_token_at = now
            self._metrics.first_token(now - sequence.arrived_at)
        else:
            self._metrics.next_token(now - sequence.last_token_at)
        sequence.last_token_at = now

    def _preempt_newest(self) -> Sequence:
        sequence = self._running.pop()
        self._stop(sequence)
        sequence.computed = 0
        self._waiting.appendleft(sequence)
        self._lora.queued(sequence.adapter)
        self._report_lora(sequence)
        self._metrics.preempted()
        return sequence

    def _stop(self, sequence: Sequence) -> None:
        self._kv.release(sequence.blocks)
        self._lora.stopped(sequence.adapter)

    def _finish(self, sequence: Sequence, reason: FinishReason, now: float) -> None:
        sequence.finished = reason
        self._report_lora(sequence)
        self._metrics.ended(sequence, now)
        sequence.notify()

    def _report_lora(self, sequence: Sequence) -> None:
        if sequence.adapter is not None:
            self._metrics.lora(*self._lora.names)
