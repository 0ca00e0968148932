"""The prefix index: learning prompts, full or not, and forgetting an endpoint."""

from __future__ import annotations

import random
from collections.abc import Callable

from picker.scheduling.prefix_index import PrefixIndex

_CAPACITY = 31_250
_FULL_BYTES = 32 << 20


def benches() -> list[tuple[str, Callable[[], object]]]:
    """Prompts of 128 blocks over 100 endpoints; "new" ones share half of their blocks with one of 20 others."""
    rng = random.Random(5)
    shared = [_blocks(rng, 64) for _ in range(20)]
    full = PrefixIndex(_FULL_BYTES)
    while not full.evicted:
        full.add(rng.randrange(100), [*rng.choice(shared), *_blocks(rng, 64)], _CAPACITY)
    known = [*shared[0], *_blocks(rng, 64)]
    full.add(0, known, _CAPACITY)
    return [
        ("prefix index: match 128 blocks", lambda: full.runs(known)),
        ("prefix index: add 128 blocks that are known", lambda: full.add(0, known, _CAPACITY)),
        (
            "prefix index: add 128 blocks, 64 of them new, memory full",
            lambda: full.add(rng.randrange(100), [*shared[3], *_blocks(rng, 64)], _CAPACITY),
        ),
        ("(making up such a prompt)", lambda: [*shared[3], *_blocks(rng, 64)]),
        ("prefix index: learn 1,000 prompts of 8 blocks", _learn(rng, remove=False)),
        ("prefix index: the same, and remove the endpoint", _learn(rng, remove=True)),
    ]


def _blocks(rng: random.Random, count: int) -> list[int]:
    return [rng.getrandbits(64) for _ in range(count)]


def _learn(rng: random.Random, *, remove: bool) -> Callable[[], object]:
    prompts = [_blocks(rng, 8) for _ in range(1000)]

    def run() -> None:
        index = PrefixIndex()
        for prompt in prompts:
            index.add(0, prompt, _CAPACITY)
        if remove:
            index.remove_endpoint(0)
            index.sweep(1000)

    return run
