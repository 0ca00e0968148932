"""The prefix index against a model that keeps plain lists."""

from __future__ import annotations

from collections.abc import Sequence

from hypothesis import given
from hypothesis import strategies as st

from picker.scheduling.prefix_index import PrefixIndex


class Naive:
    """Per endpoint, its blocks from the least to the most recently used."""

    def __init__(self) -> None:
        self.blocks: dict[int, list[int]] = {}

    def add(self, bit: int, hashes: Sequence[int], capacity: int) -> None:
        mine = self.blocks.setdefault(bit, [])
        for block in hashes:
            if block in mine:
                mine.remove(block)
            mine.append(block)
        del mine[: max(0, len(mine) - capacity)]

    def remove_endpoint(self, bit: int) -> None:
        self.blocks.pop(bit, None)

    def holders(self, block: int) -> set[int]:
        return {bit for bit, mine in self.blocks.items() if block in mine}

    def matches(self, hashes: Sequence[int]) -> dict[int, int]:
        """Walk until nobody holds a block; count the walked blocks of each."""
        counts: dict[int, int] = {}
        for block in hashes:
            holders = self.holders(block)
            if not holders:
                break
            for bit in holders:
                counts[bit] = counts.get(bit, 0) + 1
        return counts


def matches(index: PrefixIndex, hashes: Sequence[int]) -> dict[int, int]:
    counts: dict[int, int] = {}
    for mask, length in index.runs(hashes):
        for bit in range(mask.bit_length()):
            if mask >> bit & 1:
                counts[bit] = counts.get(bit, 0) + length
    return counts


BLOCKS = st.lists(st.integers(0, 11), max_size=8)
BITS = st.sampled_from([0, 1, 2, 63, 64, 200])
STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("add"), BITS, BLOCKS, st.integers(1, 6)),
        st.tuples(st.just("remove"), BITS, st.just([]), st.just(0)),
    ),
    max_size=25,
)


@given(steps=STEPS, walks=st.lists(BLOCKS, max_size=5))
def test_it_agrees_with_the_model_after_every_step(steps: list[tuple[str, int, list[int], int]], walks: list[list[int]]) -> None:
    index, naive = PrefixIndex(), Naive()
    for what, bit, hashes, capacity in steps:
        if what == "add":
            index.add(bit, hashes, capacity)
            naive.add(bit, hashes, capacity)
        else:
            index.remove_endpoint(bit)
            naive.remove_endpoint(bit)
        for block in range(12):
            assert matches(index, [block]) == dict.fromkeys(naive.holders(block), 1)
        assert len(index) == sum(1 for block in range(12) if naive.holders(block))
        for walk in walks:
            assert matches(index, walk) == naive.matches(walk)


@given(steps=STEPS)
def test_when_all_endpoints_are_gone_nothing_is_left(steps: list[tuple[str, int, list[int], int]]) -> None:
    index = PrefixIndex()
    for _, bit, hashes, capacity in steps:
        index.add(bit, hashes, max(1, capacity))
    for _, bit, _, _ in steps:
        index.remove_endpoint(bit)
    assert len(index) == 0
    assert not index._holders
    assert not index._lru


def test_runs_are_merged_and_end_where_nobody_holds_a_block() -> None:
    index = PrefixIndex()
    index.add(0, [1, 2, 3, 5], 9)
    index.add(1, [1, 2], 9)
    assert index.runs([1, 2, 3, 4, 5]) == [(0b11, 2), (0b01, 1)]
    assert index.runs([4, 1]) == []
    assert index.runs([]) == []


def test_hits_need_not_be_contiguous() -> None:
    index = PrefixIndex()
    index.add(0, [1, 2, 3], 9)
    index.add(1, [1, 3], 9)
    assert matches(index, [1, 2, 3]) == {0: 3, 1: 2}


def test_the_least_recently_used_block_goes_first() -> None:
    index = PrefixIndex()
    index.add(0, [1, 2, 3], 3)
    index.add(0, [1], 3)
    index.add(0, [4], 3)
    assert [block for block in range(1, 5) if index.runs([block])] == [1, 3, 4]


def test_a_smaller_capacity_shrinks_only_that_endpoint() -> None:
    index = PrefixIndex()
    index.add(0, [1, 2, 3], 3)
    index.add(1, [1, 2, 3], 3)
    index.add(0, [3], 1)
    assert matches(index, [3]) == {0: 1, 1: 1}
    assert matches(index, [1, 2, 3]) == {0: 1, 1: 3}


def test_removing_an_unknown_endpoint_does_nothing() -> None:
    index = PrefixIndex()
    index.remove_endpoint(5)
    index.add(0, [1], 1)
    index.remove_endpoint(5)
    assert index.runs([1]) == [(1, 1)]
