"""Data producers: what several scorers need about a request is computed once, here (contract section 4.6)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from operator import itemgetter
from struct import unpack
from typing import Annotated, ClassVar

import msgspec

from picker.endpoint import Endpoint
from picker.instruments import Distribution
from picker.keys import APPROX_PREFIX_CACHE_PRODUCER, PREFIX_MATCH, TOKENIZED_PROMPT
from picker.metrics import Metrics
from picker.plugin import Handle, Parameters
from picker.prompt import BYTES_PER_TOKEN
from picker.request import InferenceRequest
from picker.scheduling.prefix_index import PrefixIndex
from picker.snapshot import Snapshot

_MIN_BLOCK_TOKENS = 64  # whatever its origin, a smaller size is raised to this, to bound memory (as the reference does)
_MANY_HOLDERS = 64  # from here on one step per slot in C is cheaper than one per holder here
_MAX_LANE = 0xFFFF


class PrefixMatch(msgspec.Struct, frozen=True):
    """`blocks`: matched blocks per endpoint, aligned with the snapshot; None when the prompt is empty."""

    blocks: Sequence[int] | None
    total_blocks: int
    block_tokens: int
    hashes: Sequence[int]
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
    produces: ClassVar[frozenset[str]] = frozenset({PREFIX_MATCH})
    consumes: ClassVar[frozenset[str]] = frozenset({TOKENIZED_PROMPT})

    def __init__(self, name: str, parameters: ApproxPrefixParameters, handle: Handle) -> None:
        self.name = name
        self.index = PrefixIndex()
        self._parameters = parameters
        self._zeros: tuple[int, ...] = ()
        self._bits: tuple[int, ...] | None = None
        self._positions: dict[int, int] = {}
        self._lanes = 0
        self._zero_lanes = 0
        self._in_order: Callable[[tuple[int, ...]], tuple[int, ...]] | None = None
        self._snapshot: Snapshot | None = None
        self._block_tokens = 0
        self._hit_ratio: Distribution | None = None
        self._hit_bytes: Distribution | None = None

    def connect(self, metrics: Metrics, *, as_reference: bool) -> None:
        """Count how much of each prompt was found on the picked endpoint."""
        self._hit_ratio = metrics.prefix_hit_ratio.cell(self.name, self.type)
        self._hit_bytes = metrics.prefix_hit_bytes.cell(self.name, self.type)

    def match(self, request: InferenceRequest, snapshot: Snapshot) -> PrefixMatch:
        """Computed once per request and snapshot; later callers get the same object."""
        known = request.working.get(self.name)
        if isinstance(known, PrefixMatch) and known.snapshot is snapshot:
            return known
        if snapshot is not self._snapshot:
            self._prepare(snapshot)
        size = self._block_tokens
        seed = request.target_model + request.body.cache_salt
        hashes = request.body.prompt.block_hashes(size, seed, self._max_blocks(size))
        if not hashes:
            match = PrefixMatch(None, 0, size, hashes, snapshot)
        else:
            runs = self.index.runs(hashes)
            match = PrefixMatch(self._spread(runs, len(hashes)) if runs else self._zeros, len(hashes), size, hashes, snapshot)
        request.working[self.name] = match
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
        self.index.add(snapshot.bits[position], match.hashes, self._capacity(snapshot, position))

    def endpoint_removed(self, endpoint: Endpoint, bit: int) -> None:
        """Its cache is gone with it."""
        self.index.remove_endpoint(bit)

    def _prepare(self, snapshot: Snapshot) -> None:
        size = self._parameters.block_size_tokens
        if self._parameters.auto_tune and snapshot.metrics:
            size = snapshot.metrics[0].block_size or size
        self._block_tokens = max(size, _MIN_BLOCK_TOKENS)
        if snapshot.bits is not self._bits:
            self._arrange(snapshot.bits)
        self._snapshot = snapshot

    def _arrange(self, bits: tuple[int, ...]) -> None:
        """For the endpoints of these snapshots."""
        slots = [self.index.slot(bit) for bit in bits]
        self._positions = {slot: position for position, slot in enumerate(slots)}
        self._lanes = max(slots, default=-1) + 1
        self._zero_lanes = int.from_bytes(("0" * self._lanes).encode("utf-16-le"), "little")
        self._in_order = None if slots == list(range(len(slots))) else _picks(slots)
        self._zeros = (0,) * len(bits)
        self._bits = bits

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

    def _spread(self, runs: Sequence[tuple[int, int]], total: int) -> Sequence[int]:
        """Matched blocks by position."""
        if self._lanes >= _MANY_HOLDERS and total <= _MAX_LANE and sum([mask.bit_count() for mask, _ in runs]) >= _MANY_HOLDERS:
            return self._spread_widely(runs)
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

    def _spread_widely(self, runs: Sequence[tuple[int, int]]) -> tuple[int, ...]:
        """The same without a step per holder: each slot is a lane of 16 bits in one long integer, and all are added up at once.

        A mask becomes lanes of '0' or '1' by way of its binary digits, which UTF-16 makes 16 bits wide. For 334 of 1,000 endpoints that
        is 12 µs in place of 69.
        """
        lanes, zeros = self._lanes, self._zero_lanes
        inside = (1 << lanes) - 1
        total = 0
        for mask, length in runs:
            digits = format(mask & inside, f"0{lanes}b")[::-1].encode("utf-16-le")
            total += (int.from_bytes(digits, "little") - zeros) * length
        blocks = unpack(f"<{lanes}H", total.to_bytes(2 * lanes, "little"))
        return blocks if self._in_order is None else self._in_order(blocks)


def _picks(slots: Sequence[int]) -> Callable[[tuple[int, ...]], tuple[int, ...]]:
    """The values at these places."""
    if len(slots) > 1:
        return itemgetter(*slots)
    return lambda values: tuple([values[slot] for slot in slots])
