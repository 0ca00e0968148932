"""An engine under a hand-moved clock."""

from __future__ import annotations

from array import array
from dataclasses import replace
from typing import Any

from prometheus_client.parser import text_string_to_metric_families

from bench.sim.engine import Engine
from bench.sim.metrics import Metrics
from bench.sim.sequence import FinishReason, Sequence
from bench.sim.settings import Settings

PLAIN = Settings(
    max_model_len=64,
    max_num_seqs=4,
    max_num_batched_tokens=64,
    block_size=4,
    num_gpu_blocks=33,
    time_to_first_token_ms=20.0,
    inter_token_latency_ms=10.0,
    prefill_us_per_token=1000.0,
    time_factor_under_load=1.0,
)


class Rig:
    """An engine, the time, and what the metrics page says."""

    def __init__(self, **changes: Any) -> None:
        self.settings = replace(PLAIN, **changes)
        self.metrics = Metrics(self.settings, wall_clock=lambda: 1000.0 + self.now)
        self.engine = Engine(self.settings, self.metrics)
        self.now = 0.0

    def sequence(self, prompt: list[int], output: int = 4, *, adapter: str | None = None, ends_with: FinishReason = "length") -> Sequence:
        made = array("I", (sum(prompt) + 1000 + at for at in range(output)))
        return Sequence(array("I", prompt), made, block_size=self.settings.block_size, adapter=adapter, ends_with=ends_with)

    def add(self, prompt: list[int], output: int = 4, *, adapter: str | None = None, ends_with: FinishReason = "length") -> Sequence:
        sequence = self.sequence(prompt, output, adapter=adapter, ends_with=ends_with)
        self.engine.add(sequence, self.now)
        return sequence

    def step(self) -> bool:
        """One step; False if there was nothing to do."""
        step = self.engine.begin_step(self.now)
        if step is None:
            return False
        assert step.ends_at >= self.now
        self.now = step.ends_at
        self.engine.end_step(step)
        return True

    def run(self, until: float | None = None) -> None:
        """Step until idle, or until the time is reached."""
        for _ in range(10_000):
            if (until is not None and self.now >= until) or not self.step():
                return
        raise AssertionError("the engine does not come to an end")

    def value(self, name: str, **labels: str) -> float:
        """A sample of the metrics page; 0 if it is not there."""
        page = self.metrics.render(self.engine.load()).decode()
        for family in text_string_to_metric_families(page):
            for sample in family.samples:
                if sample.name == name and labels.items() <= sample.labels.items():
                    return sample.value
        return 0.0

    def assert_empty(self) -> None:
        """Nothing is left in the engine."""
        load = self.engine.load()
        assert (load.running, load.waiting, load.deferred, load.kv_usage) == (0, 0, 0, 0.0)
