"""Which endpoint has probably cached which prompt blocks: an approximate index learnt from our own routing, bounded in bytes.

Blocks cost 8 bytes each; all else is per segment (`picker.scheduling.segments`), and so is the work: a prompt of 128 blocks is a few
segments. An endpoint holds a segment whole or not at all; where holdings part, the segment is split. Each endpoint forgets its least
recently used blocks beyond its capacity, and when the bytes run out the blocks go that nobody has used for longest. Within a prompt the
last block goes first, as in the server, so a block is never held without those before it.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import count

from picker.scheduling.recency import Lrus
from picker.scheduling.segments import BLOCK_BYTES, SEGMENT_BYTES, Segments, mask_bytes

UNLIMITED = 1 << 62

HELD_BYTES = 110
"""A segment's place in the LRU of one endpoint that holds it; an average, as `SEGMENT_BYTES`."""

_FEW = 64
"""What a call may forget beyond what is in proportion to what it adds."""


class _Holdings:
    """What one endpoint holds, and how recently it was used. Of a segment that was split while the endpoint held it only the rear part
    is listed: the front takes its place when the rear is forgotten. So a split costs the same however many hold the segment."""

    __slots__ = ("blocks", "flag", "lru", "places")

    def __init__(self, slot: int, lru: int) -> None:
        self.flag = 1 << slot
        self.lru = lru
        self.places: dict[int, int] = {}
        self.blocks = 0


class PrefixIndex:
    """Endpoints are known by `bit` (`Snapshot.bits`); sets of them are bitmasks over `slot(bit)`, which is nearly always the same.

    `limit_bytes` bounds the estimate `size_bytes`. The call that adds n blocks forgets O(n) segments, whatever was to be freed; when
    that does not make room for the n blocks, fewer are learnt. What an endpoint costs without blocks, 0.5 KB, does not count.
    """

    def __init__(self, limit_bytes: int = UNLIMITED) -> None:
        self.limit_bytes = limit_bytes
        self.evicted = 0
        """Blocks forgotten for want of memory, counted once per endpoint that held them."""
        self._segments = Segments()
        self._lrus = Lrus()
        self._listed = 0  # places in the LRUs of all endpoints together
        self._slots: dict[int, int] = {}
        self._holdings: dict[int, _Holdings] = {}
        self._mask_bytes = 0  # of the largest set there can be
        self._gone: list[int] = []
        self._gone_mask = 0

    def __len__(self) -> int:
        """Distinct blocks held anywhere; those of a removed endpoint until they are swept."""
        return self._segments.blocks

    @property
    def size_bytes(self) -> int:
        """Estimated memory."""
        return self._segments.size_bytes + self._listed * HELD_BYTES

    def slot(self, bit: int) -> int:
        """The position of an endpoint in bitmasks, its own until it is removed."""
        slot = self._slots.get(bit)
        if slot is None:
            # A removed endpoint's slot is busy until it is swept.
            slot = bit if bit not in self._holdings else next(n for n in count() if n not in self._holdings)
            self._slots[bit] = slot
            self._holdings[slot] = _Holdings(slot, self._lrus.open())
            self._mask_bytes = max(self._mask_bytes, mask_bytes(1 << slot | 1))
        return slot

    def runs(self, hashes: Sequence[int]) -> list[tuple[int, int]]:
        """(bitmask of holders, number of consecutive blocks they all hold), from the first block to the first that nobody holds.

        As in the reference, an endpoint's match is the number of walked blocks it holds.
        """
        runs: list[tuple[int, int]] = []
        current, length = -1, 0
        holders, gone = self._segments.holders, self._gone_mask
        for segment, size in self._segments.walk(hashes, len(hashes)):
            mask = holders[segment]
            if gone:
                mask &= ~gone
            if mask != current:
                if length:
                    runs.append((current, length))
                if not mask:
                    return runs
                current, length = mask, 0
            length += size
        if length:
            runs.append((current, length))
        return runs

    def add(self, bit: int, hashes: Sequence[int], capacity: int) -> None:
        """The endpoint now holds these blocks, the chained hashes of a prompt from its first block on; its least recently used ones
        beyond `capacity` are forgotten, the last block of a prompt before the first."""
        if self._gone:
            self.sweep(_FEW)
        end = min(len(hashes), capacity)
        if end <= 0:
            return
        slot = self.slot(bit)
        holdings = self._holdings[slot]
        segments = self._segments
        way = segments.walk(hashes, end)
        known = sum([size for _, size in way])
        passed = {segment for segment, _ in way}
        room = self._room_behind(way, passed, end - known)
        if room < 0 or len(passed) < len(way):  # twice through the same blocks: somebody has made up colliding hashes
            return
        end = min(end, known + room)
        chain = [segment if size == segments.sizes[segment] else segments.split(segment, size) for segment, size in way]
        if end > known:
            chain.append(segments.create(hashes[known:end]))
        for segment in reversed(chain):
            segments.recency.touch(segment)
            self._hold(holdings, segment)
        if holdings.blocks > capacity:
            self._shrink(slot, capacity, 2 * end + _FEW)

    def _hold(self, holdings: _Holdings, segment: int) -> None:
        """The endpoint has just used this segment."""
        mask = self._segments.holders[segment]
        if not mask & holdings.flag:
            holdings.blocks += self._segments.sizes[segment]
            self._segments.set_holders(segment, mask | holdings.flag if mask else holdings.flag)
        place = holdings.places.get(segment)
        if place is None:
            holdings.places[segment] = self._lrus.add(holdings.lru, segment)
            self._listed += 1
        else:
            self._lrus.touch(holdings.lru, place)

    def _room_behind(self, way: Sequence[tuple[int, int]], spared: set[int], blocks: int) -> int:
        """How many of so many new blocks fit behind `way`, after forgetting what is oldest; negative: not even the way to them."""
        # Each segment of the way may have to be split and may be new to the endpoint; at the end comes a new one; and one more may be
        # split because the endpoint is full.
        segment_bytes = SEGMENT_BYTES + self._mask_bytes
        fixed = (len(way) + 1) * (segment_bytes + HELD_BYTES) + segment_bytes
        free = self.limit_bytes - self.size_bytes - fixed
        if free < blocks * BLOCK_BYTES:
            for segment, _ in reversed(way):
                self._segments.recency.touch(segment)
            free += self._evict(blocks * BLOCK_BYTES - free, 4 * blocks + _FEW, spared)
        return free // BLOCK_BYTES

    def _evict(self, wanted_bytes: int, effort: int, spared: set[int]) -> int:
        """Forget what nobody has used for longest, for want of memory; returns the bytes that came free."""
        before = self.size_bytes
        goal = before - wanted_bytes
        segments = self._segments
        while (excess := self.size_bytes - goal) > 0 and effort > 0:
            segment = segments.recency.oldest()
            if not segment or segment in spared:
                break
            mask = segments.holders[segment]
            size = segments.sizes[segment]
            slot = (mask & -mask).bit_length() - 1
            blocks = -(-excess // BLOCK_BYTES)
            if blocks < size and mask == self._holdings[slot].flag:
                self._trim(slot, segment, blocks)
                self.evicted += blocks
                break
            self._drop(slot, segment)
            self.evicted += size
            effort -= 1
        return before - self.size_bytes

    def _shrink(self, slot: int, capacity: int, effort: int) -> None:
        """Forget an endpoint's least recently used blocks beyond its capacity."""
        holdings = self._holdings[slot]
        segments = self._segments
        while effort > 0 and (excess := holdings.blocks - capacity) > 0 and holdings.places:
            segment = self._lrus.oldest(holdings.lru)
            size = segments.sizes[segment]
            if size > excess:
                if segments.holders[segment] == holdings.flag:
                    self._trim(slot, segment, excess)
                    return
                segments.split(segment, size - excess)
            self._drop(slot, segment)
            effort -= 1

    def remove_endpoint(self, bit: int) -> None:
        """Forget an endpoint that is gone: at once as far as anybody can see, its memory bit by bit (`sweep`)."""
        slot = self._slots.pop(bit, None)
        if slot is not None:
            self._gone.append(slot)
            self._gone_mask |= 1 << slot
            self.sweep(_FEW)

    def sweep(self, segments: int) -> None:
        """Give back the memory of removed endpoints, at most so many segments of it. Every `add` does a little."""
        while self._gone:
            slot = self._gone[-1]
            holdings = self._holdings[slot]
            while holdings.places:
                if segments <= 0:
                    return
                segments -= 1
                self._drop(slot, self._lrus.oldest(holdings.lru))
            del self._holdings[slot]
            self._lrus.close(holdings.lru)
            self._gone.pop()
            self._gone_mask &= ~holdings.flag

    def _trim(self, slot: int, segment: int, excess: int) -> None:
        """The only holder of a segment forgets the end of it."""
        self._holdings[slot].blocks -= excess
        self._segments.trim(segment, excess)

    def _drop(self, slot: int, segment: int) -> None:
        """One endpoint forgets one segment."""
        segments, holdings = self._segments, self._holdings[slot]
        places, flag = holdings.places, holdings.flag
        holdings.blocks -= segments.sizes[segment]
        place = places.pop(segment, None)
        if place is not None:
            self._lrus.remove(place)
            self._listed -= 1
        front = segments.fronts[segment]
        left = segments.holders[segment] & ~flag
        if left and not left & (left - 1):
            left = self._holdings[left.bit_length() - 1].flag  # the one integer that all of its segments share
        segments.set_holders(segment, left)
        if front and segments.holders[front] & flag and front not in places:
            places[front] = self._lrus.add_oldest(holdings.lru, front)
            self._listed += 1
