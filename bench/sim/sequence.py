"""One sequence in the engine: its tokens, how far it got, and why it ended."""

from __future__ import annotations

from array import array
from collections.abc import Callable
from typing import Literal

from bench.sim.kv_cache import BlockHashes, BlockTable

FinishReason = Literal["stop", "length", "abort"]


class Sequence:
    """A prompt and the output it will get. The engine writes `produced`, `cached` and `finished`; owners read them."""

    __slots__ = (
        "adapter",
        "admitted_at",
        "arrived_at",
        "blocks",
        "cached",
        "computed",
        "ends_with",
        "finished",
        "first_token_at",
        "hashes",
        "last_token_at",
        "notify",
        "output_length",
        "produced",
        "prompt_length",
        "ready_at",
        "requested",
    )

    def __init__(
        self,
        prompt: array[int],
        output: array[int],
        *,
        block_size: int,
        ends_with: FinishReason = "length",
        adapter: str | None = None,
        salt: str = "",
        requested: int | None = None,
        notify: Callable[[], None] = lambda: None,
    ) -> None:
        """`output` may be empty (embeddings): the sequence then ends with its prefill. `requested` is max_tokens as asked."""
        self.prompt_length = len(prompt)
        self.output_length = len(output)
        self.hashes = BlockHashes(prompt + output, block_size, f"{adapter or ''}\0{salt}")
        self.blocks = BlockTable()
        self.ends_with = ends_with
        self.adapter = adapter
        self.requested = requested
        self.notify = notify
        self.computed = 0
        self.produced = 0
        self.cached: int | None = None
        self.finished: FinishReason | None = None
        self.arrived_at = 0.0
        self.admitted_at: float | None = None
        self.ready_at = 0.0
        self.first_token_at: float | None = None
        self.last_token_at = 0.0

    @property
    def length(self) -> int:
        """Tokens known so far: the prompt and what was produced."""
        return self.prompt_length + self.produced

    @property
    def pending(self) -> int:
        """Tokens to compute before the next one can be produced: 1 while decoding."""
        return self.length - self.computed
