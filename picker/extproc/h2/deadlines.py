"""Deadlines in slots of one tick: adding and expiring cost the same however many there are."""

from __future__ import annotations

from typing import Generic, TypeVar

Item = TypeVar("Item")


class Deadlines(Generic[Item]):
    """Items that are due at a time. An item that no longer cares is discarded, or simply ignored when it comes up."""

    __slots__ = ("_done", "_slots", "_tick_s")

    def __init__(self, tick_s: float) -> None:
        self._tick_s = tick_s
        self._slots: dict[int, dict[Item, None]] = {}
        self._done = 0

    def __len__(self) -> int:
        return sum(map(len, self._slots.values()))

    def add(self, item: Item, at_s: float) -> int:
        """Due at `at_s`, at most a tick later. Returns the slot, for `discard`."""
        slot = max(int(at_s / self._tick_s) + 1, self._done + 1)
        self._slots.setdefault(slot, {})[item] = None
        return slot

    def discard(self, item: Item, slot: int) -> None:
        """No longer of interest."""
        items = self._slots.get(slot)
        if items is not None:
            items.pop(item, None)
            if not items:
                del self._slots[slot]

    def due(self, now_s: float) -> list[Item]:
        """Takes out what is due."""
        slot = int(now_s / self._tick_s)
        if not self._slots or slot <= self._done:
            self._done = max(self._done, slot)
            return []
        if slot - self._done > len(self._slots):
            passed = sorted(s for s in self._slots if s <= slot)
        else:
            passed = [s for s in range(self._done + 1, slot + 1) if s in self._slots]
        self._done = slot
        return [item for s in passed for item in self._slots.pop(s)]
