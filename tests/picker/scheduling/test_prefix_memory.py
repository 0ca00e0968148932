"""The index's estimate of its memory against what the allocator says."""

from __future__ import annotations

import gc
import random
import tracemalloc
from collections.abc import Iterator

import pytest

from picker.scheduling.prefix_index import PrefixIndex

TOLERANCE = 0.2


@pytest.fixture
def traced() -> Iterator[None]:
    gc.collect()
    tracemalloc.start()
    yield
    tracemalloc.stop()


def allocated_bytes() -> int:
    gc.collect()
    return tracemalloc.get_traced_memory()[0]


# endpoints, prompts, new blocks, shared prefixes, their blocks, capacity, limit: growing ones and such as have long been full
CASES = {
    "short prompts": (10, 20_000, 1, 0, 0, 10**6, 1 << 62),
    "middling prompts": (10, 10_000, 16, 0, 0, 10**6, 1 << 62),
    "long prompts": (10, 2_000, 128, 0, 0, 10**6, 1 << 62),
    "prefixes that a thousand endpoints share": (1000, 15_000, 8, 20, 32, 10**6, 1 << 62),
    "endpoints at their capacity": (8, 15_000, 8, 0, 0, 2_000, 1 << 62),
    "memory full of short prompts": (10, 30_000, 2, 0, 0, 10**6, 2 << 20),
    "memory full of middling prompts": (100, 15_000, 16, 10, 32, 10**6, 2 << 20),
}


@pytest.mark.parametrize("case", CASES)
def test_the_estimate_is_right_within_a_fifth(case: str, traced: None) -> None:
    endpoints, prompts, new, heads, head_blocks, capacity, limit_bytes = CASES[case]
    rng = random.Random(case)
    shared = [[rng.getrandbits(64) for _ in range(head_blocks)] for _ in range(heads)] or [[]]
    index = PrefixIndex(limit_bytes)
    for bit in range(endpoints):
        index.slot(bit)  # what an endpoint costs without blocks does not count
    before = allocated_bytes()
    for _ in range(prompts):
        index.add(rng.randrange(endpoints), [*rng.choice(shared), *[rng.getrandbits(64) for _ in range(new)]], capacity)
    real = allocated_bytes() - before
    assert index.size_bytes == pytest.approx(real, rel=TOLERANCE)
    assert (index.evicted > 0) == (limit_bytes < 1 << 62)
