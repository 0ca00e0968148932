"""What an engine holds at one moment."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Load:
    """What the engine holds right now; `deferred` of the `waiting` wait for a LoRA slot. `kv_usage` is 0 to 1."""

    running: int
    waiting: int
    deferred: int
    kv_usage: float
