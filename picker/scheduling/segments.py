"""Prompts as a tree of chained block hashes, of which only the edges are kept: *segments*, blocks that follow one another and first came
with one request. A segment is found by the hash of its first block; the hash chain makes that the same as its place in the tree.

Segments are numbers and their parts are in lists: half a million of them as objects would cost the garbage collector tens of
milliseconds in one piece. The table of first blocks is cut in shards, because a dict of that size takes as long to grow.
"""

from __future__ import annotations

from array import array
from collections.abc import Sequence

from picker.scheduling.recency import Recency

BLOCK_BYTES = 8
SEGMENT_BYTES = 240
"""An array, its places in five lists, the first block's hash and its place in a dict, the number. By tracemalloc, as an average between
a dict that has just grown and one that is about to (tests/picker/scheduling/test_prefix_memory.py)."""

_SHARDS = 64
_NOTHING: array[int] = array("Q")


class Segments:
    """By number, from 1 on: 0 is none. `hashes` are its blocks; `holders` a bitmask, the same for all of them; `fronts` the segment
    that was split off in front of it, whose holders include its own; `recency` when it was last used."""

    def __init__(self) -> None:
        self.hashes: list[array[int]] = [_NOTHING]
        self.holders: list[int] = [0]
        self.fronts: list[int] = [0]
        self.recency = Recency()
        self.blocks = 0
        """Blocks in all segments together."""
        self.size_bytes = 0
        """An estimate."""
        self._free: list[int] = []
        self._starts: tuple[dict[int, int], ...] = tuple([{} for _ in range(_SHARDS)])

    def walk(self, hashes: Sequence[int], end: int) -> list[tuple[int, int]]:
        """The segments along a prompt's first `end` blocks, and how many blocks of each are on its way."""
        found: list[tuple[int, int]] = []
        starts, all_hashes = self._starts, self.hashes
        at = 0
        while at < end:
            first = hashes[at]
            segment = starts[first % _SHARDS].get(first)
            if segment is None:
                break
            blocks = all_hashes[segment]
            size = len(blocks)
            # Of chained hashes an equal last one means that all are equal.
            if at + size > end or blocks[-1] != hashes[at + size - 1]:
                size = _common(blocks, hashes, at, min(size, end - at))
            found.append((segment, size))
            at += size
        return found

    def create(self, hashes: array[int]) -> int:
        """A new segment without holders, as the most recently used."""
        if self._free:
            segment = self._free.pop()
            self.hashes[segment] = hashes
        else:
            segment = len(self.hashes)
            self.hashes.append(hashes)
            self.holders.append(0)
            self.fronts.append(0)
        self._starts[hashes[0] % _SHARDS][hashes[0]] = segment
        self.recency.add(segment)
        self.blocks += len(hashes)
        self.size_bytes += SEGMENT_BYTES + BLOCK_BYTES * len(hashes)
        return segment

    def split(self, segment: int, size: int) -> int:
        """A new segment takes the first `size` blocks. The rear keeps its number, and so its place in every order; the front is the
        next to go after it."""
        hashes = self.hashes[segment]
        self._shorten(segment, hashes[size:])
        front = self.create(hashes[:size])
        self._starts[hashes[size] % _SHARDS][hashes[size]] = segment
        self.recency.move_after(front, segment)
        self.fronts[front] = self.fronts[segment]
        self.fronts[segment] = front
        self.set_holders(front, self.holders[segment])
        return front

    def trim(self, segment: int, excess: int) -> None:
        """Without its last `excess` blocks, which are not all of it."""
        hashes = self.hashes[segment]
        self._shorten(segment, hashes[: len(hashes) - excess])

    def _shorten(self, segment: int, hashes: array[int]) -> None:
        # Always a copy: an array that shrinks in small steps never gives memory back.
        fewer = len(self.hashes[segment]) - len(hashes)
        self.hashes[segment] = hashes
        self.blocks -= fewer
        self.size_bytes -= BLOCK_BYTES * fewer

    def set_holders(self, segment: int, mask: int) -> None:
        """Nobody left: it is no more."""
        holders = self.holders
        self.size_bytes += mask_bytes(mask) - mask_bytes(holders[segment])
        holders[segment] = mask
        if not mask:
            self._remove(segment)

    def _remove(self, segment: int) -> None:
        hashes = self.hashes[segment]
        self.blocks -= len(hashes)
        self.size_bytes -= SEGMENT_BYTES + BLOCK_BYTES * len(hashes)
        shard = self._starts[hashes[0] % _SHARDS]
        if shard.get(hashes[0]) == segment:
            del shard[hashes[0]]
        self.hashes[segment] = _NOTHING
        self.fronts[segment] = 0
        self.recency.remove(segment)
        self._free.append(segment)


def mask_bytes(mask: int) -> int:
    """Of a set of one or none the integer is shared."""
    return 32 + mask.bit_length() * 4 // 30 if mask & (mask - 1) else 0


def _common(blocks: Sequence[int], hashes: Sequence[int], at: int, most: int) -> int:
    """How many of the first `most` blocks of a segment a prompt has from block `at` on. The first is known to be equal, and what
    comes before an equal one is."""
    low = 1
    while low < most:
        middle = (low + most + 1) // 2
        if blocks[middle - 1] == hashes[at + middle - 1]:
            low = middle
        else:
            most = middle - 1
    return low
