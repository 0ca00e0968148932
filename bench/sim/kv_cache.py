"""KV blocks: who holds how many, which full blocks can be hit again, and which of those is evicted first."""

from __future__ import annotations

from array import array
from collections import OrderedDict

import xxhash


class BlockHashes:
    """The chained hashes of a token sequence's full blocks, computed when first asked for."""

    __slots__ = ("_block_bytes", "_hashes", "_token_bytes")

    def __init__(self, tokens: array[int], block_size: int, extra: str) -> None:
        """`tokens` are 4-byte ids; `extra` keeps equal tokens apart (LoRA adapter, cache salt)."""
        self._token_bytes = tokens.tobytes()
        self._block_bytes = block_size * tokens.itemsize
        self._hashes = [xxhash.xxh64_intdigest(extra.encode())]

    def upto(self, count: int) -> list[int]:
        """The hashes of the first `count` blocks."""
        hashes = self._hashes
        width = self._block_bytes
        for index in range(len(hashes) - 1, count):
            hashes.append(xxhash.xxh64_intdigest(self._token_bytes[index * width : (index + 1) * width], hashes[-1]))
        return hashes[1 : count + 1]

    def at(self, index: int) -> int:
        """The hash of block `index`."""
        if len(self._hashes) <= index + 1:
            self.upto(index + 1)
        return self._hashes[index + 1]


class BlockTable:
    """The blocks one sequence holds, in order: the hash of a block that others may hit, None for a private one."""

    __slots__ = ("held",)

    def __init__(self) -> None:
        self.held: list[int | None] = []


class KvCache:
    """A fixed number of blocks. Blocks nobody holds keep their content, hittable, until the room is needed (LRU)."""

    def __init__(self, blocks: int, block_size: int, *, prefix_caching: bool) -> None:
        self._total = blocks
        self._block_size = block_size
        self._prefix_caching = prefix_caching
        self._blank = blocks
        self._holders: dict[int, int] = {}
        self._unheld: OrderedDict[int, None] = OrderedDict()

    @property
    def free(self) -> int:
        """Blocks that no sequence holds, with cached content or without."""
        return self._blank + len(self._unheld)

    @property
    def usage(self) -> float:
        """The share of blocks held by sequences, 0 to 1."""
        return 1.0 - self.free / self._total

    def admit(self, table: BlockTable, hashes: BlockHashes, tokens: int) -> int | None:
        """Give an empty table the blocks for `tokens`; returns how many of them are cached, None if there is no room."""
        hits: list[int] = []
        if self._prefix_caching:
            # The last token is always computed, for there would be nothing to sample from otherwise.
            for block_hash in hashes.upto((tokens - 1) // self._block_size):
                if block_hash not in self._holders:
                    break
                hits.append(block_hash)
        needed = -(-tokens // self._block_size) - len(hits)
        if needed > self.free - sum(1 for block_hash in hits if block_hash in self._unheld):
            return None
        for block_hash in hits:
            self._holders[block_hash] += 1
            self._unheld.pop(block_hash, None)
        table.held.extend(hits)
        self._take(table, needed)
        return len(hits) * self._block_size

    def grow(self, table: BlockTable, tokens: int) -> bool:
        """Make the table hold at least `tokens`; False, with nothing changed, if there is no room."""
        needed = -(-tokens // self._block_size) - len(table.held)
        if needed > self.free:
            return False
        self._take(table, needed)
        return True

    def fill(self, table: BlockTable, hashes: BlockHashes, before: int, after: int) -> None:
        """Make the blocks hittable that became full when the computed tokens went from `before` to `after`."""
        if not self._prefix_caching:
            return
        for index in range(before // self._block_size, after // self._block_size):
            block_hash = hashes.at(index)
            # A twin computed at the same time stays private: the first copy serves the hits.
            if table.held[index] is None and block_hash not in self._holders:
                table.held[index] = block_hash
                self._holders[block_hash] = 1

    def release(self, table: BlockTable) -> None:
        """Take all blocks back, the last one first so that the tail of a prefix is evicted before its head."""
        for block_hash in reversed(table.held):
            if block_hash is None:
                self._blank += 1
                continue
            self._holders[block_hash] -= 1
            if not self._holders[block_hash]:
                self._unheld[block_hash] = None
        table.held.clear()

    def forget(self) -> None:
        """Drop the cached content of every block that no sequence holds."""
        for block_hash in self._unheld:
            del self._holders[block_hash]
        self._blank += len(self._unheld)
        self._unheld.clear()

    def _take(self, table: BlockTable, count: int) -> None:
        for _ in range(count):
            if self._blank:
                self._blank -= 1
            else:
                evicted, _none = self._unheld.popitem(last=False)
                del self._holders[evicted]
            table.held.append(None)
