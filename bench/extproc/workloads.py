"""What is asked: the table of workloads."""

from __future__ import annotations

import enum
from collections.abc import Sequence
from dataclasses import dataclass

from bench.extproc.arms import Arm


class Pace(enum.Enum):
    """How requests follow each other."""

    CLOSED = "closed loop"
    """A connection sends its next request when the last one is answered."""
    OPEN = "open loop"
    """Requests leave at a fixed rate, whatever comes back."""


@dataclass(frozen=True, slots=True)
class Load:
    """What the client sends. `prompts` different bodies take turns. `simple`: any load generator can do it."""

    pace: Pace
    prompt_bytes: int
    concurrency: int = 1
    rate_per_s: float = 0.0
    prompts: int = 1
    simple: bool = False


@dataclass(frozen=True, slots=True)
class Answer:
    """What the model servers say: `events` server-sent events, one each `pace_ms`; with 0 one JSON object."""

    events: int = 0
    pace_ms: int = 0


@dataclass(frozen=True, slots=True)
class Workload:
    """One workload. `load` None: no requests, the picker only scrapes. `warmup_s` precedes what is measured.

    `per_event`: costs are told per event of a stream, not per request.
    """

    name: str
    title: str
    endpoints: int = 10
    load: Load | None = None
    answer: Answer = Answer()
    per_event: bool = False
    warmup_s: float = 1.5

    @property
    def idle(self) -> bool:
        """Nothing is asked."""
        return self.load is None

    @property
    def streamed(self) -> bool:
        """Answers are server-sent events."""
        return self.answer.events > 0

    def takes(self, arm: Arm) -> bool:
        """Whether the arm has a part in it."""
        return not arm.only or self.name in arm.only


_SMALL_BYTES = 2_000

WORKLOADS = (
    Workload(
        "small", "200 tokens in a chat body of 2 KB, a JSON answer of 100 tokens, 32 connections",
        load=Load(Pace.CLOSED, _SMALL_BYTES, concurrency=32, simple=True),
    ),
    Workload(
        "rate500", "the same at 500 requests/s, open loop",
        load=Load(Pace.OPEN, _SMALL_BYTES, rate_per_s=500, prompts=64),
    ),
    Workload(
        "sse100", "streams of 100 events, one each 10 ms, 32 at once",
        load=Load(Pace.CLOSED, _SMALL_BYTES, concurrency=32, prompts=64), answer=Answer(100, 10), per_event=True,
    ),
    Workload(
        "sse1000", "streams of 1,000 events, one each 5 ms, 16 at once",
        load=Load(Pace.CLOSED, _SMALL_BYTES, concurrency=16, prompts=64), answer=Answer(1000, 5), per_event=True,
    ),
    Workload(
        "long", "prompts of 220 KB, streams of 30 events, one each 5 ms, 20 at once",
        load=Load(Pace.CLOSED, 220_000, concurrency=20, prompts=8), answer=Answer(30, 5),
    ),
    Workload(
        "million", "prompts of 1,000,000 tokens (4 MB) at 10 requests/s, open loop, a JSON answer",
        load=Load(Pace.OPEN, 4_000_000, rate_per_s=10, prompts=4),
    ),
    Workload("idle10", "no requests, 10 endpoints with vLLM's 57 KB page of metrics", warmup_s=4.0),
    Workload("idle100", "no requests, 100 endpoints with vLLM's 57 KB page of metrics", endpoints=100, warmup_s=4.0),
)  # fmt: skip


def chosen(names: Sequence[str] | None) -> list[Workload]:
    """Those called `names` (None: all), in the order of the table. Raises ValueError for a name that is none."""
    known = [workload.name for workload in WORKLOADS]
    for name in names or ():
        if name not in known:
            raise ValueError(f"{name!r}: expected one of {', '.join(known)}")
    return [workload for workload in WORKLOADS if names is None or workload.name in names]
