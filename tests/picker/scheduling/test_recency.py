"""The linked list against a plain one."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from picker.scheduling.recency import Recency


def listed(recency: Recency) -> list[int]:
    found, number = [], recency.oldest
    while number:
        found.append(number)
        number = recency._newer[number]
    backwards, number = [], recency._older[0]
    while number:
        backwards.append(number)
        number = recency._older[number]
    assert found == backwards[::-1]
    return found


@given(st.lists(st.tuples(st.integers(1, 6), st.integers(1, 6), st.booleans()), max_size=40))
def test_it_agrees_with_a_list(steps: list[tuple[int, int, bool]]) -> None:
    recency, plain = Recency(), []
    for number, other, flag in steps:
        if number not in plain:
            recency.add(number)
            plain.append(number)
        elif flag and other in plain and other != number:
            recency.move_after(number, other)
            plain.remove(number)
            plain.insert(plain.index(other) + 1, number)
        elif flag:
            recency.remove(number)
            plain.remove(number)
        else:
            recency.touch(number)
            plain.remove(number)
            plain.append(number)
        assert listed(recency) == plain
        assert recency.oldest == (plain[0] if plain else 0)
