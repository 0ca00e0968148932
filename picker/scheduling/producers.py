"""Data producers: what several scorers need about a request is computed once, here (contract section 4.6)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated

import msgspec

from picker.endpoint import Endpoint
from picker.instruments import Distribution
from picker.plugin import Handle, Parameters
from picker.prompt import BYTES_PER_TOKEN
from picker.request import InferenceRequest
from picker.scheduling.prefix_index import PrefixIndex
from picker.snapshot import Snapshot

APPROX_PREFIX_CACHE_PRODUCER = "approx-prefix-cache-producer"

_MIN_BLOCK_TOKENS = 64  # whatever its origin, a smaller size is raised to this, to bound memory (as the reference does)


@dataclass(slots=True)
class PrefixMatch:
    """`blocks`: matched blocks per endpoint, aligned with the snapshot; None when the prompt is empty."""

    blocks: Sequence[int] | None
    total_blocks: int
    block_tokens: int
    hashes: Sequence[int]
    seed: str
    snapshot: Snapshot


class ApproxPrefixParameters(Parameters, frozen=True):
    """With `autoTune`, block size and capacity follow what the first endpoint reports of its KV cache."""

    auto_tune: bool = True
    block_size_tokens: Annotated[int, msgspec.Meta(ge=1)] = 16
    max_prefix_tokens_to_match: Annotated[int, msgspec.Meta(ge=0)] = 131_072
    max_prefix_blocks_to_match: Annotated[int, msgspec.Meta(ge=1)] = 2048
    lru_capacity_per_server: Annotated[int, msgspec.Meta(ge=1)] = 31_250


class ApproxPrefixCacheProducer:
    """Learns which prompts went where and says how much of a prompt each endpoint has seen."""

    type = APPROX_PREFIX_CACHE_PRODUCER
    Parameters = ApproxPrefixParameters

    def __init__(self, name: str, parameters: ApproxPrefixParameters, handle: Handle) -> None:
        self.name = name
        self.index = PrefixIndex()
        self._parameters = parameters
        self._zeros: tuple[int, ...] = ()
        self._positions: dict[int, int] = {}
        self._snapshot: Snapshot | None = None
        self._block_tokens = 0
        self._hit_ratio: Distribution | None = None
        self._hit_bytes: Distribution | None = None

    def observe_with(self, hit_ratio: Distribution, hit_bytes: Distribution) -> None:
        """Where to count how much of each prompt was found on the picked endpoint."""
        self._hit_ratio = hit_ratio
        self._hit_bytes = hit_bytes

    def match(self, request: InferenceRequest, snapshot: Snapshot) -> PrefixMatch:
        """Computed once per request and snapshot; later callers get the same object."""
        known = request.attributes.get(self.name)
        if isinstance(known, PrefixMatch) and known.snapshot is snapshot:
            return known
        if snapshot is not self._snapshot:
            self._prepare(snapshot)
        size = self._block_tokens
        seed = request.target_model + request.body.cache_salt
        hashes = request.body.prompt.block_hashes(size, seed, self._max_blocks(size))
        if not hashes:
            match = PrefixMatch(None, 0, size, hashes, seed, snapshot)
        else:
            runs = self.index.runs(hashes)
            match = PrefixMatch(self._spread(runs) if runs else self._zeros, len(hashes), size, hashes, seed, snapshot)
        request.attributes[self.name] = match
        return match

    def pre_request(self, request: InferenceRequest, snapshot: Snapshot, position: int) -> None:
        """The picked endpoint is about to cache this prompt."""
        match = self.match(request, snapshot)
        if match.blocks is None:
            return
        hit = match.blocks[position]
        if self._hit_ratio is not None and self._hit_bytes is not None:
            self._hit_ratio.observe(hit / match.total_blocks)
            self._hit_bytes.observe(hit * match.block_tokens * BYTES_PER_TOKEN)
        # Last block first: what the index forgets, when a prompt is longer than the cache, is then its tail, as in the server.
        self.index.add(snapshot.bits[position], match.hashes[::-1], self._capacity(snapshot, position))

    def endpoint_removed(self, endpoint: Endpoint, bit: int) -> None:
        """Its cache is gone with it."""
        self.index.remove_endpoint(bit)

    def _prepare(self, snapshot: Snapshot) -> None:
        size = self._parameters.block_size_tokens
        if self._parameters.auto_tune and snapshot.metrics:
            size = snapshot.metrics[0].block_size or size
        self._block_tokens = max(size, _MIN_BLOCK_TOKENS)
        self._positions = {bit: position for position, bit in enumerate(snapshot.bits)}
        self._zeros = (0,) * len(snapshot)
        self._snapshot = snapshot

    def _max_blocks(self, block_tokens: int) -> int:
        tokens = self._parameters.max_prefix_tokens_to_match
        return max(1, tokens // block_tokens) if tokens else self._parameters.max_prefix_blocks_to_match

    def _capacity(self, snapshot: Snapshot, position: int) -> int:
        """Blocks of our size that fit the server's KV cache: the reference takes the server's own number of (smaller) blocks, which
        makes it believe in several times the cache that exists."""
        metrics = snapshot.metrics[position]
        if self._parameters.auto_tune and metrics.num_blocks and metrics.block_size:
            return max(1, metrics.num_blocks * metrics.block_size // self._block_tokens)
        return self._parameters.lru_capacity_per_server

    def _spread(self, runs: Sequence[tuple[int, int]]) -> list[int]:
        blocks = list(self._zeros)
        positions = self._positions
        for mask, length in runs:
            while mask:
                low = mask & -mask
                position = positions.get(low.bit_length() - 1)
                if position is not None:
                    blocks[position] += length
                mask ^= low
        return blocks
