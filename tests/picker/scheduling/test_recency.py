"""The linked list against a plain one."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from picker.scheduling.recency import Lrus, Recency


def listed(recency: Recency) -> list[int]:
    found, number = [], recency.oldest()
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
        assert recency.oldest() == (plain[0] if plain else 0)


@given(st.lists(st.tuples(st.integers(0, 2), st.integers(1, 5), st.sampled_from(["add", "oldest", "touch", "remove"])), max_size=60))
def test_many_lists_do_not_mix(steps: list[tuple[int, int, str]]) -> None:
    lrus = Lrus()
    ends = [lrus.open() for _ in range(3)]
    plain: list[list[int]] = [[] for _ in ends]
    places: dict[tuple[int, int], int] = {}
    for which, segment, what in steps:
        mine, end, key = plain[which], ends[which], (which, segment)
        if key not in places:
            if what == "oldest":
                places[key] = lrus.add_oldest(end, segment)
                mine.insert(0, segment)
            else:
                places[key] = lrus.add(end, segment)
                mine.append(segment)
        else:
            mine.remove(segment)
            if what == "remove":
                lrus.remove(places.pop(key))
            else:
                lrus.touch(end, places[key])
                mine.append(segment)
        assert [lrus.oldest(e) for e in ends] == [m[0] if m else 0 for m in plain]
    for which, end in enumerate(ends):
        while segment := lrus.oldest(end):
            assert segment == plain[which].pop(0)
            lrus.remove(places.pop((which, segment)))
        lrus.close(end)
    assert sorted(lrus._free) == list(range(1, len(lrus._segments)))
