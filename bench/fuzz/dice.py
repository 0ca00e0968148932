"""Where a fuzzed case takes its choices from: a random generator, or the bytes that a coverage-guided engine mutates."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from random import Random
from typing import Protocol, TypeVar

Item = TypeVar("Item")


class Source(Protocol):
    """Numbers and bytes. An exhausted source goes on with zeros."""

    def number(self, below: int) -> int:
        """From 0 to `below` - 1."""

    def blob(self, size: int) -> bytes:
        """`size` bytes."""


class Chance:
    """A source without end."""

    def __init__(self, random: Random) -> None:
        self._random = random

    def number(self, below: int) -> int:
        """From 0 to `below` - 1."""
        return int(self._random.random() * below)

    def blob(self, size: int) -> bytes:
        """`size` bytes."""
        return self._random.randbytes(size)


class Tape:
    """The bytes given, then zeros: an engine that changes a byte changes one choice."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._at = 0

    def number(self, below: int) -> int:
        """From 0 to `below` - 1."""
        size = 1 if below <= 0x100 else 2 if below <= 0x1_0000 else 4
        return int.from_bytes(self.blob(size)) % below

    def blob(self, size: int) -> bytes:
        """`size` bytes."""
        found = self._data[self._at : self._at + size]
        self._at += size
        return found.ljust(size, b"\0")


class Dice:
    """Choices in words. Every loop over them must end when all of them are 0."""

    def __init__(self, source: Source) -> None:
        self.number = source.number
        self.blob = source.blob

    def between(self, low: int, high: int) -> int:
        """Both included."""
        return low + self.number(high - low + 1)

    def one_in(self, count: int) -> bool:
        """Rarely; never on an exhausted source."""
        return self.number(count) == count - 1

    def pick(self, items: Sequence[Item]) -> Item:
        """One of them."""
        return items[self.number(len(items))]

    def bytes_up_to(self, most: int) -> bytes:
        """Short ones more often than long ones."""
        return self.blob(self.number(self.between(1, most) + 1))

    def cuts(self, data: bytes, most: int) -> list[bytes]:
        """`data` in at most `most` + 1 pieces."""
        edges = sorted([0, len(data), *[self.number(len(data) + 1) for _ in range(self.number(most + 1))]])
        return [data[a:b] for a, b in pairwise(edges)]


def scramble(dice: Dice, data: bytes, most: int = 8) -> bytes:
    """`data` with some bytes changed, taken out, put in or repeated."""
    changed = bytearray(data)
    for _ in range(dice.between(1, most)):
        at = dice.number(len(changed) + 1)
        kind = dice.number(5)
        if kind == 0 and at < len(changed):
            changed[at] = dice.number(256)
        elif kind == 1 and at < len(changed):
            changed[at] ^= 1 << dice.number(8)
        elif kind == 2:
            del changed[at : at + dice.number(20)]
        elif kind == 3:
            changed[at:at] = dice.blob(dice.number(20))
        else:
            start = dice.number(len(changed) + 1)
            changed[at:at] = changed[start : start + dice.number(100)]
    return bytes(changed)
