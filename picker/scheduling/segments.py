"""Prompts as a tree of chained block hashes, of which only the edges are kept: *segments*, blocks that follow one another and first came
with one request. A segment is found by the hash of its first block; the hash chain makes that the same as its place in the tree.

Segments are numbers, and their parts are in arrays and in dicts of nothing but numbers and bytes, which the garbage collector passes
over: half a million of them as objects would cost it a hundred milliseconds in one piece, every time. Dicts are cut in parts because one
of that size takes tens of milliseconds to grow.
"""

from __future__ import annotations

from array import array
from collections.abc import Sequence
from struct import Struct

from picker.scheduling.recency import Recency

BLOCK_BYTES = 8
SEGMENT_BYTES = 205
"""Its bytes object, its places in five arrays and two dicts, the first block's hash, the number. By tracemalloc, as an average between
a dict that has just grown and one that is about to (tests/picker/scheduling/test_prefix_memory.py)."""

_SHARDS = 64
_CHUNK = 4096
_hash = Struct("=Q").unpack_from


class Segments:
    """By number, from 1 on: 0 is none. `sizes` are in blocks; `holders` a bitmask, the same for all blocks of a segment; `fronts` the
    segment that was split off in front of it, whose holders include its own; `recency` when it was last used."""

    def __init__(self) -> None:
        self.sizes = array("i", [0])
        self.holders: list[int] = [0]
        self.fronts = array("i", [0])
        self.recency = Recency()
        self.blocks = 0
        """Blocks in all segments together."""
        self.size_bytes = 0
        """An estimate."""
        self._free = array("i")
        self._hashes: list[dict[int, bytes]] = [{}]  # packed
        self._starts: tuple[dict[int, int], ...] = tuple([{} for _ in range(_SHARDS)])

    def walk(self, hashes: Sequence[int], end: int) -> list[tuple[int, int]]:
        """The segments along a prompt's first `end` blocks, and how many blocks of each are on its way."""
        found: list[tuple[int, int]] = []
        starts, hashes_of, sizes = self._starts, self._hashes, self.sizes
        at = 0
        while at < end:
            first = hashes[at]
            segment = starts[first % _SHARDS].get(first)
            if segment is None:
                break
            blocks = hashes_of[segment // _CHUNK][segment]
            size = sizes[segment]
            # Of chained hashes an equal last one means that all are equal.
            if at + size > end or _hash(blocks, BLOCK_BYTES * (size - 1))[0] != hashes[at + size - 1]:
                size = _common(blocks, hashes, at, min(size, end - at))
            found.append((segment, size))
            at += size
        return found

    def create(self, hashes: Sequence[int]) -> int:
        """A new segment without holders, as the most recently used."""
        return self._create(array("Q", hashes).tobytes())

    def _create(self, blocks: bytes) -> int:
        size = len(blocks) // BLOCK_BYTES
        if self._free:
            segment = self._free.pop()
            self.sizes[segment] = size
        else:
            segment = len(self.holders)
            self.sizes.append(size)
            self.holders.append(0)
            self.fronts.append(0)
            if segment % _CHUNK == 0:
                self._hashes.append({})
        self._hashes[segment // _CHUNK][segment] = blocks
        (first,) = _hash(blocks)
        self._starts[first % _SHARDS][first] = segment
        self.recency.add(segment)
        self.blocks += size
        self.size_bytes += SEGMENT_BYTES + len(blocks)
        return segment

    def split(self, segment: int, size: int) -> int:
        """A new segment takes the first `size` blocks. The rear keeps its number, and so its place in every order; the front is the
        next to go after it."""
        blocks = self._hashes[segment // _CHUNK][segment]
        rear = blocks[BLOCK_BYTES * size :]
        self._shorten(segment, rear)
        front = self._create(blocks[: BLOCK_BYTES * size])
        (first,) = _hash(rear)
        self._starts[first % _SHARDS][first] = segment
        self.recency.move_after(front, segment)
        self.fronts[front] = self.fronts[segment]
        self.fronts[segment] = front
        self.set_holders(front, self.holders[segment])
        return front

    def trim(self, segment: int, excess: int) -> None:
        """Without its last `excess` blocks, which are not all of it."""
        self._shorten(segment, self._hashes[segment // _CHUNK][segment][: -BLOCK_BYTES * excess])

    def _shorten(self, segment: int, blocks: bytes) -> None:
        size = len(blocks) // BLOCK_BYTES
        fewer = self.sizes[segment] - size
        self._hashes[segment // _CHUNK][segment] = blocks
        self.sizes[segment] = size
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
        chunk = self._hashes[segment // _CHUNK]
        (first,) = _hash(chunk[segment])
        chunk[segment] = b""  # and not deleted: a dict in which keys come and go takes twice the room
        self.blocks -= self.sizes[segment]
        self.size_bytes -= SEGMENT_BYTES + BLOCK_BYTES * self.sizes[segment]
        shard = self._starts[first % _SHARDS]
        if shard.get(first) == segment:
            del shard[first]
        self.sizes[segment] = 0
        self.fronts[segment] = 0
        self.recency.remove(segment)
        self._free.append(segment)


def mask_bytes(mask: int) -> int:
    """Of a set of one or none the integer is shared."""
    return 32 + mask.bit_length() * 4 // 30 if mask & (mask - 1) else 0


def _common(blocks: bytes, hashes: Sequence[int], at: int, most: int) -> int:
    """How many of the first `most` blocks of a segment a prompt has from block `at` on. The first is known to be equal, and what
    comes before an equal one is."""
    low = 1
    while low < most:
        middle = (low + most + 1) // 2
        if _hash(blocks, BLOCK_BYTES * (middle - 1))[0] == hashes[at + middle - 1]:
            low = middle
        else:
            most = middle - 1
    return low
