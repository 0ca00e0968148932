"""The order in which numbered things were used, as a linked list in two arrays: 8 bytes each, every operation O(1)."""

from __future__ import annotations

from array import array


class Recency:
    """Numbers from 1 on, small: the arrays are as long as the largest. 0 is the end at which the list is closed to a ring."""

    __slots__ = ("_newer", "_older")

    def __init__(self) -> None:
        self._newer = array("i", [0])
        self._older = array("i", [0])

    @property
    def oldest(self) -> int:
        """The one that was not used for longest; 0 when there is none."""
        return self._newer[0]

    def add(self, number: int) -> None:
        """A number that is not in the list, as the newest."""
        while number >= len(self._newer):
            self._newer.append(0)
            self._older.append(0)
        self._insert(number, self._older[0])

    def touch(self, number: int) -> None:
        """It was used just now."""
        self.remove(number)
        self._insert(number, self._older[0])

    def move_after(self, number: int, older: int) -> None:
        """To the place that is just newer than `older`."""
        self.remove(number)
        self._insert(number, older)

    def remove(self, number: int) -> None:
        """Out of the list."""
        newer, older = self._newer, self._older
        after, before = newer[number], older[number]
        newer[before] = after
        older[after] = before

    def _insert(self, number: int, before: int) -> None:
        newer, older = self._newer, self._older
        after = newer[before]
        newer[before] = older[after] = number
        older[number] = before
        newer[number] = after
