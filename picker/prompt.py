"""The canonical prompt: the bytes that stand for what the model will read, in the order in which it will read them.

Four bytes count as one token, as in the reference picker's `token-producer` (contract section 4.6), so that estimates and prefix
blocks agree with it. Token-id prompts are packed as little-endian uint32 and therefore fall under the same rule exactly.
Block hashes follow the reference: h0 = xxh64(model + cache salt); id_i = xxh64(block i); h_i = xxh64(LE64(id_i) || LE64(h_{i-1})); a
partial last block counts.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from itertools import starmap
from struct import Struct
from typing import NamedTuple

from xxhash import xxh64_intdigest

BYTES_PER_TOKEN = 4
_PAIR = Struct("<QQ").pack


@lru_cache(maxsize=64)
def _blocks(size_bytes: int) -> Struct:
    return Struct(f"{size_bytes}s")


class Medium(NamedTuple):
    """An image, a recording or a video in a prompt. `digest` (64 bits) is the same for the same location or the same inline data."""

    modality: str
    digest: int


class Prompt:
    """Canonical prompt bytes plus the tokens of content that is not text, and which `media` that is. The hashes asked for last are kept."""

    __slots__ = ("_hashes", "data", "extra_tokens", "media", "tokens")

    def __init__(self, data: bytes = b"", extra_tokens: int = 0, media: Sequence[Medium] = ()) -> None:
        self.data = data
        self.media = media
        self.extra_tokens = extra_tokens
        self.tokens = -(-len(data) // BYTES_PER_TOKEN) + extra_tokens
        """Estimated number of prompt tokens."""
        self._hashes: tuple[tuple[int, str, int], list[int]] | None = None

    def forget(self) -> None:
        """Keep the number of tokens, and neither text nor hashes: a streamed answer outlives their use by minutes."""
        self.data = b""
        self.media = ()
        self._hashes = None

    def block_hashes(self, block_tokens: int, seed: str, max_blocks: int) -> list[int]:
        """Chained xxh64 of each block of `block_tokens` tokens, at most `max_blocks` of them. `seed` is model + cache salt."""
        cached = self._hashes
        key = (block_tokens, seed, max_blocks)
        if cached is not None and cached[0] == key:
            return cached[1]
        step = block_tokens * BYTES_PER_TOKEN
        view = memoryview(self.data)[: step * max_blocks]
        partial = len(view) % step
        previous = xxh64_intdigest(seed.encode())
        hashes: list[int] = []
        if len(view) >= step:  # a server may report a block size that no Struct can have
            # Blocks are cut and hashed in C; what is left to do here is the chain.
            ids = starmap(xxh64_intdigest, _blocks(step).iter_unpack(view[: len(view) - partial]))
            hashes = [previous := xxh64_intdigest(_PAIR(block_id, previous)) for block_id in ids]
        if partial:
            hashes.append(xxh64_intdigest(_PAIR(xxh64_intdigest(view[-partial:]), previous)))
        self._hashes = (key, hashes)
        return hashes


NO_PROMPT = Prompt()
