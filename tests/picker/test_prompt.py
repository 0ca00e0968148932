"""Prompt hashes against the contract's formula, written down a second time."""

from __future__ import annotations

import struct

import pytest
import xxhash
from hypothesis import given
from hypothesis import strategies as st

from picker.prompt import NO_PROMPT, Prompt


def by_the_formula(tokens: list[int], model: str, cache_salt: str, block_tokens: int) -> list[int]:
    """h0 = xxh64(model + cacheSalt); id_i = xxh64(LE uint32 tokens of block i); h_i = xxh64(LE64(id_i) || LE64(h_(i-1)))."""
    previous = xxhash.xxh64((model + cache_salt).encode()).intdigest()
    hashes = []
    for start in range(0, len(tokens), block_tokens):
        block = tokens[start : start + block_tokens]
        block_id = xxhash.xxh64(struct.pack(f"<{len(block)}I", *block)).intdigest()
        previous = xxhash.xxh64(struct.pack("<Q", block_id) + struct.pack("<Q", previous)).intdigest()
        hashes.append(previous)
    return hashes


@given(
    tokens=st.lists(st.integers(0, 2**32 - 1), max_size=40),
    model=st.text(max_size=8),
    salt=st.text(max_size=4),
    block_tokens=st.integers(1, 12),
    max_blocks=st.integers(1, 50),
)
def test_hashes_follow_the_contract(tokens: list[int], model: str, salt: str, block_tokens: int, max_blocks: int) -> None:
    prompt = Prompt(struct.pack(f"<{len(tokens)}I", *tokens))
    assert prompt.block_hashes(block_tokens, model + salt, max_blocks) == by_the_formula(tokens, model, salt, block_tokens)[:max_blocks]


@given(head=st.binary(min_size=64, max_size=64), one=st.binary(max_size=40), other=st.binary(max_size=40))
def test_equal_beginnings_have_equal_hashes(head: bytes, one: bytes, other: bytes) -> None:
    a, b = Prompt(head + one).block_hashes(4, "m", 99), Prompt(head + other).block_hashes(4, "m", 99)
    assert a[:4] == b[:4]


@pytest.mark.parametrize("second", [(8, "m", 9), (4, "n", 9), (4, "m", 2)])
def test_remembered_hashes_are_those_that_were_asked_for(second: tuple[int, str, int]) -> None:
    data = bytes(range(100))
    prompt = Prompt(data)
    first = prompt.block_hashes(4, "m", 9)
    assert prompt.block_hashes(4, "m", 9) is first
    assert prompt.block_hashes(*second) == Prompt(data).block_hashes(*second) != first
    assert prompt.block_hashes(4, "m", 9) == first


def test_a_difference_anywhere_changes_all_later_hashes() -> None:
    data = bytearray(4 * 4 * 3)
    before = Prompt(bytes(data)).block_hashes(4, "m", 9)
    data[17] = 1
    after = Prompt(bytes(data)).block_hashes(4, "m", 9)
    assert [a == b for a, b in zip(before, after, strict=True)] == [True, False, False]


@pytest.mark.parametrize(("size", "extra", "tokens"), [(0, 0, 0), (1, 0, 1), (4, 0, 1), (5, 0, 2), (0, 7, 7), (8, 7, 9)])
def test_four_bytes_are_a_token(size: int, extra: int, tokens: int) -> None:
    assert Prompt(b"x" * size, extra).tokens == tokens


def test_no_prompt_has_no_blocks() -> None:
    assert NO_PROMPT.block_hashes(64, "m", 9) == []
    assert NO_PROMPT.tokens == 0


@pytest.mark.parametrize("block_tokens", [10**9, 10**15, 2**61, 10**19, 10**300])
def test_a_block_size_that_no_server_can_have_makes_one_partial_block(block_tokens: int) -> None:
    (first,) = Prompt(b"x" * 1000).block_hashes(block_tokens, "m", 1)
    assert first == by_the_formula(list(struct.unpack("<250I", b"x" * 1000)), "m", "", 250)[0]
