"""The prefix index against a model that keeps plain lists of blocks."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from picker.scheduling.prefix_index import PrefixIndex
from picker.scheduling.recency import Lrus

Prompt = Sequence[int]
_HASHES: dict[tuple[int, ...], int] = {}


def chained(prompt: Prompt) -> list[int]:
    """A number per block that stands for the block and all before it, as the chained hashes do. Spread out, to fill all shards."""
    return [_HASHES.setdefault(tuple(prompt[: i + 1]), (len(_HASHES) * 0x9E3779B97F4A7C15 + 1) % 2**64) for i in range(len(prompt))]


class Naive:
    """Per endpoint, its blocks from the least to the most recently used."""

    def __init__(self) -> None:
        self.blocks: dict[int, list[int]] = {}

    def add(self, bit: int, hashes: Sequence[int], capacity: int) -> None:
        mine = self.blocks.setdefault(bit, [])
        for block in reversed(hashes):
            if block in mine:
                mine.remove(block)
            mine.append(block)
        del mine[: max(0, len(mine) - capacity)]

    def remove_endpoint(self, bit: int) -> None:
        self.blocks.pop(bit, None)

    def holders(self, block: int) -> set[int]:
        return {bit for bit, mine in self.blocks.items() if block in mine}

    def all(self) -> set[int]:
        return {block for mine in self.blocks.values() for block in mine}

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
    bit_of = {slot: bit for bit, slot in index._slots.items()}
    counts: dict[int, int] = {}
    for mask, length in index.runs(hashes):
        for slot in range(mask.bit_length()):
            if mask >> slot & 1:
                counts[bit_of[slot]] = counts.get(bit_of[slot], 0) + length
    return counts


def listed(lrus: Lrus, end: int) -> list[int]:
    found, place = [], lrus._order.oldest(end)
    while place != end:
        found.append(lrus._segments[place])
        place = lrus._order._newer[place]
    return found


def check(index: PrefixIndex) -> None:
    """What must hold whatever was done."""
    segments = index._segments
    alive = [n for n, mask in enumerate(segments.holders) if mask]
    assert segments.blocks == sum(segments.sizes[n] for n in alive)
    assert sorted(segments._free) == [n for n in range(1, len(segments.holders)) if n not in alive]
    assert sum(len(shard) for shard in segments._starts) == len(alive)
    assert {n: len(blocks) for chunk in segments._hashes for n, blocks in chunk.items() if blocks} == {
        n: 8 * segments.sizes[n] for n in alive
    }
    for slot, holdings in index._holdings.items():
        mine = [n for n in alive if segments.holders[n] & holdings.flag]
        assert holdings.flag == 1 << slot
        assert holdings.blocks == sum(segments.sizes[n] for n in mine)
        assert sorted(holdings.places) == sorted(listed(index._lrus, holdings.lru))
        assert set(holdings.places) <= set(mine)
        for n in set(mine) - set(holdings.places):
            # Not listed: some listed segment has it in front of it.
            behind = [m for m in mine if segments.fronts[m] == n]
            assert behind, "nobody would ever forget it"
    assert index._listed == sum(len(h.places) for h in index._holdings.values())
    order, n = [], segments.recency.oldest()
    while n:
        order.append(n)
        n = segments.recency._newer[n]
    assert sorted(order) == alive


PROMPTS = st.lists(st.integers(0, 2), max_size=8)
BITS = st.sampled_from([0, 1, 2, 63, 64, 200])
STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("add"), BITS, PROMPTS, st.integers(1, 9)),
        st.tuples(st.just("remove"), BITS, st.just([]), st.just(0)),
    ),
    max_size=40,
)
ONE_CAPACITY = st.tuples(st.integers(1, 12), st.lists(st.tuples(BITS, PROMPTS), max_size=60))


@given(steps=STEPS, walks=st.lists(PROMPTS, max_size=5))
def test_it_agrees_with_the_model_after_every_step(steps: list[tuple[str, int, list[int], int]], walks: list[list[int]]) -> None:
    index, naive = PrefixIndex(), Naive()
    for what, bit, prompt, capacity in steps:
        hashes = chained(prompt)
        if what == "add":
            index.add(bit, hashes, capacity)
            if hashes:
                naive.add(bit, hashes, capacity)
        else:
            index.remove_endpoint(bit)
            naive.remove_endpoint(bit)
        check(index)
        assert len(index) == len(naive.all())
        for walk in [*walks, prompt]:
            assert matches(index, chained(walk)) == naive.matches(chained(walk))


@settings(max_examples=300)
@given(ONE_CAPACITY)
def test_many_prompts_at_one_capacity_never_exceed_it_and_agree_with_the_model(run: tuple[int, list[tuple[int, list[int]]]]) -> None:
    capacity, adds = run
    index, naive = PrefixIndex(), Naive()
    for bit, prompt in adds:
        index.add(bit, chained(prompt), capacity)
        naive.add(bit, chained(prompt), capacity)
        check(index)
        assert all(h.blocks <= capacity for h in index._holdings.values())
        for _, walk in adds:
            assert matches(index, chained(walk)) == naive.matches(chained(walk))


@given(steps=STEPS)
def test_when_all_endpoints_are_gone_nothing_is_left(steps: list[tuple[str, int, list[int], int]]) -> None:
    index = PrefixIndex()
    for _, bit, prompt, capacity in steps:
        index.add(bit, chained(prompt), max(1, capacity))
    for _, bit, _, _ in steps:
        index.remove_endpoint(bit)
    assert (len(index), index.size_bytes) == (0, 0)
    assert not index._holdings
    assert len(index._lrus._free) == len(index._lrus._segments) - 1
    assert not any(index._segments._starts)
    check(index)


@settings(max_examples=200)
@given(
    limit_bytes=st.integers(0, 6_000),
    steps=st.lists(
        st.one_of(st.tuples(BITS, st.lists(st.integers(0, 2), max_size=60), st.integers(1, 100)), st.tuples(BITS, st.none(), st.just(0))),
        max_size=60,
    ),
)
def test_memory_is_bounded_after_every_step(limit_bytes: int, steps: list[tuple[int, list[int] | None, int]]) -> None:
    index, naive = PrefixIndex(limit_bytes), Naive()
    for bit, prompt, capacity in steps:
        if prompt is None:
            index.remove_endpoint(bit)
            naive.remove_endpoint(bit)
        else:
            index.add(bit, chained(prompt), capacity)
            naive.add(bit, chained(prompt), 10**6)
        check(index)
        assert index.size_bytes <= limit_bytes
    # Never more than was ever sent there.
    for _, prompt, _ in steps:
        if prompt is not None:
            counts, sent = matches(index, chained(prompt)), naive.matches(chained(prompt))
            assert all(count <= sent.get(bit, 0) for bit, count in counts.items())


@given(
    st.lists(st.tuples(BITS, st.lists(st.integers(0, 5), max_size=8), st.integers(1, 9)), max_size=40),
    st.sampled_from([1 << 62, 3_000]),
)
def test_hashes_that_collide_confuse_matches_and_break_nothing(adds: list[tuple[int, list[int], int]], limit_bytes: int) -> None:
    index = PrefixIndex(limit_bytes)
    for bit, hashes, capacity in adds:
        index.add(bit, hashes, capacity)
        index.runs(hashes)
        assert index.size_bytes <= limit_bytes
    for bit, _, _ in adds:
        index.remove_endpoint(bit)
        index.sweep(1000)


def test_runs_are_merged_and_end_where_nobody_holds_a_block() -> None:
    index = PrefixIndex()
    index.add(0, chained([1, 2, 3]), 9)
    index.add(1, chained([1, 2]), 9)
    assert index.runs(chained([1, 2, 3, 4, 5])) == [(0b11, 2), (0b01, 1)]
    assert index.runs(chained([1, 2])) == [(0b11, 2)]
    assert index.runs(chained([1, 7])) == [(0b11, 1)]
    assert index.runs(chained([4, 1])) == []
    assert index.runs([]) == []


def test_the_end_of_the_least_recently_used_prompt_goes_first() -> None:
    index = PrefixIndex()
    index.add(0, chained([1, 2, 3]), 6)
    index.add(0, chained([4, 5, 6]), 6)
    index.add(0, chained([1]), 6)  # 2 and 3 stay old
    index.add(0, chained([7, 8, 9]), 6)
    assert [matches(index, chained(p)).get(0, 0) for p in ([1, 2, 3], [4, 5, 6], [7, 8, 9])] == [1, 2, 3]


def test_of_a_prompt_longer_than_the_capacity_the_beginning_is_kept() -> None:
    index = PrefixIndex()
    index.add(0, chained([9]), 3)
    index.add(0, chained(range(10)), 3)
    assert matches(index, chained(range(10))) == {0: 3}
    assert len(index) == 3


def test_a_smaller_capacity_shrinks_only_that_endpoint() -> None:
    index = PrefixIndex()
    index.add(0, chained([1, 2, 3]), 3)
    index.add(1, chained([1, 2, 3]), 3)
    index.add(0, chained([1]), 1)
    assert matches(index, chained([1, 2, 3])) == {0: 1, 1: 3}


def test_a_much_smaller_capacity_is_reached_step_by_step() -> None:
    index = PrefixIndex()
    for n in range(1000):
        index.add(0, chained([n]), 1000)
    index.add(0, chained([0]), 10)
    held = [len(index)]
    while held[-1] > 10:
        index.add(0, chained([0]), 10)
        held.append(len(index))
        assert 0 < held[-2] - held[-1] <= 66
    assert held[0] > 900


def test_removing_an_unknown_endpoint_does_nothing() -> None:
    index = PrefixIndex()
    index.remove_endpoint(5)
    index.add(0, [1], 1)
    index.remove_endpoint(5)
    assert index.runs([1]) == [(1, 1)]


def filled(prompts: int, bits: Sequence[int] = (0,)) -> PrefixIndex:
    index = PrefixIndex()
    for n in range(prompts):
        for bit in bits:
            index.add(bit, chained([n, 1]), 10**6)
    return index


def test_a_removed_endpoint_is_gone_at_once_and_its_memory_bit_by_bit() -> None:
    index = filled(500)
    index.remove_endpoint(0)
    assert index.runs(chained([499, 1])) == []
    assert len(index) > 800
    # Its bit has a new owner, who must not be taken for it.
    index.add(0, chained([600]), 10**6)
    assert matches(index, chained([600])) == {0: 1}
    assert matches(index, chained([499, 1])) == {}
    assert index.slot(0) == 1
    index.add(0, chained([499]), 10**6)
    assert matches(index, chained([499, 1])) == {0: 1}
    for _ in range(10):
        index.add(7, chained([601]), 10**6)
    check(index)
    assert len(index) == 3
    index.remove_endpoint(0)
    assert index.slot(0) == 0


def test_an_endpoints_removal_leaves_what_others_hold() -> None:
    index = filled(200, bits=(0, 1))
    index.remove_endpoint(0)
    assert index.runs(chained([7, 1])) == [(0b10, 2)]
    index.sweep(10**6)
    assert index.runs(chained([7, 1])) == [(0b10, 2)]
    check(index)


def test_when_memory_is_full_the_globally_least_recently_used_goes() -> None:
    one = PrefixIndex()
    one.add(0, chained(range(20)), 10**6)
    index = PrefixIndex(one.size_bytes * 20)
    for n in range(60):
        index.add(n % 3, chained([n, *range(19)]), 10**6)
        index.add(0, chained([0, *range(19)]), 10**6)  # in use all the time
        check(index)
        assert matches(index, chained([n, *range(19)])).get(n % 3) == 20
    assert matches(index, chained([0, *range(19)])) == {0: 20}
    known = [len(index.runs(chained([n, *range(19)]))) for n in range(1, 60)]
    assert known == sorted(known), "older prompts go first"
    assert known.count(1) > 10
    assert index.evicted > 0


def test_memory_is_freed_from_the_end_of_the_oldest_prompt() -> None:
    index = PrefixIndex()
    index.add(0, chained(range(2000)), 10**6)
    index.limit_bytes = index.size_bytes + 1000
    for n in range(5):
        index.add(1, chained([-1 - n, 1, 2]), 10**6)
    assert 1700 < matches(index, chained(range(2000)))[0] < 2000
    assert all(matches(index, chained([-1 - n, 1, 2])) == {1: 3} for n in range(5))
    assert index.evicted == 2000 - matches(index, chained(range(2000)))[0]


@pytest.mark.parametrize("blocks", [1, 30])
def test_no_request_pays_for_a_large_eviction(blocks: int) -> None:
    index = PrefixIndex()
    for n in range(3000):
        for bit in range(3):
            index.add(bit, chained([n, 1, 2]), 10**6)
    before = index._listed
    index.limit_bytes = 10_000
    index.add(0, chained([4000, *range(blocks - 1)]), 10**6)
    assert before - (4 * blocks + 64) <= index._listed < before
    # It had no room to learn anything; it will once enough has been forgotten.
    assert matches(index, chained([4000])) == {}
    for n in range(1000):
        index.add(0, chained([5000 + n]), 10**6)
    assert index.size_bytes <= 10_000
    assert matches(index, chained([5999])) == {0: 1}
    check(index)


def test_what_does_not_fit_at_all_is_not_learnt() -> None:
    index = PrefixIndex(0)
    index.add(0, chained([1, 2]), 9)
    assert (len(index), index.size_bytes, index.evicted) == (0, 0, 0)
    index.limit_bytes = 2000
    index.add(0, chained(range(1000)), 10**6)
    assert 0 < matches(index, chained(range(1000)))[0] < 200
    assert index.size_bytes <= 2000
