"""The approximate prefix cache: block size, capacity, limits, and what is forgotten."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from picker.endpoint import NEVER_SCRAPED, EndpointMetrics
from picker.metrics import Metrics
from picker.plugin import EndpointWatcher, PreRequest
from picker.scheduling.producers import ApproxPrefixCacheProducer
from tests.picker.scheduling.pool import build, endpoint, idle, only, pool, request


def producer(**parameters: Any) -> ApproxPrefixCacheProducer:
    made: ApproxPrefixCacheProducer = build(ApproxPrefixCacheProducer, parameters)
    return made


def prompt(blocks: int, tokens: int = 64) -> bytes:
    return b"".join(n.to_bytes(4, "little") for n in range(blocks * tokens))


@pytest.mark.parametrize(
    ("parameters", "metrics", "size"),
    [
        ({}, [NEVER_SCRAPED], 64),
        ({}, [EndpointMetrics(block_size=16)], 64),
        ({}, [EndpointMetrics(block_size=64)], 64),
        ({}, [EndpointMetrics(block_size=128)], 128),
        ({}, [EndpointMetrics(block_size=256), EndpointMetrics(block_size=128)], 256),
        ({}, [NEVER_SCRAPED, EndpointMetrics(block_size=128)], 64),
        ({"blockSizeTokens": 100}, [NEVER_SCRAPED], 100),
        ({"blockSizeTokens": 100}, [EndpointMetrics(block_size=128)], 128),
        ({"autoTune": False}, [EndpointMetrics(block_size=128)], 64),
        ({"autoTune": False, "blockSizeTokens": 16}, [EndpointMetrics(block_size=128)], 64),
        ({"autoTune": False, "blockSizeTokens": 200}, [EndpointMetrics(block_size=128)], 200),
    ],
)
def test_block_size(parameters: dict[str, Any], metrics: list[EndpointMetrics], size: int) -> None:
    match = producer(**parameters).match(request(b"x" * 4 * size * 2), pool(metrics))
    assert match.block_tokens == size
    assert match.total_blocks == 2


def test_a_partial_last_block_counts() -> None:
    match = producer().match(request(b"x" * (4 * 64 + 1)), idle(1))
    assert match.total_blocks == 2


@pytest.mark.parametrize(
    ("parameters", "blocks"),
    [
        ({}, 2048),
        ({"maxPrefixTokensToMatch": 640}, 10),
        ({"maxPrefixTokensToMatch": 700}, 10),
        ({"maxPrefixTokensToMatch": 1}, 1),
        ({"maxPrefixTokensToMatch": 0}, 2048),
        ({"maxPrefixTokensToMatch": 0, "maxPrefixBlocksToMatch": 7}, 7),
        ({"maxPrefixBlocksToMatch": 7}, 2048),
    ],
)
def test_how_much_of_a_prompt_is_looked_at(parameters: dict[str, Any], blocks: int) -> None:
    assert producer(**parameters).match(request(prompt(2050)), idle(1)).total_blocks == blocks


def test_two_producers_with_different_limits_do_not_share_hashes() -> None:
    asked = request(prompt(5))
    short = build(ApproxPrefixCacheProducer, {"maxPrefixTokensToMatch": 128}, name="short")
    assert [p.match(asked, idle(1)).total_blocks for p in (short, producer(), short)] == [2, 5, 2]


def test_an_empty_prompt_matches_nothing_and_teaches_nothing() -> None:
    made, snapshot, asked = producer(), idle(2), request(b"", extra=500)
    match = made.match(asked, snapshot)
    assert match.blocks is None
    assert match.total_blocks == 0
    made.pre_request(asked, snapshot, 0)
    assert len(made.index) == 0


def test_what_went_where_is_found_there() -> None:
    made, snapshot = producer(), idle(3)
    first = made.match(request(prompt(4)), snapshot)
    assert first.blocks is not None
    assert list(first.blocks) == [0, 0, 0]
    made.pre_request(request(prompt(4)), snapshot, 1)
    made.pre_request(request(prompt(2)), snapshot, 2)
    found = made.match(request(prompt(6)), snapshot).blocks
    assert found is not None
    assert list(found) == [0, 4, 2]


def test_a_match_is_made_once_per_request_and_snapshot() -> None:
    made, asked = producer(), request(prompt(1))
    wide, narrow = idle(3), idle(1)
    made.pre_request(request(prompt(1)), wide, 0)
    assert made.match(asked, wide) is made.match(asked, wide)
    again = made.match(asked, narrow).blocks
    assert again is not None
    assert len(again) == 1


def test_columns_follow_the_bits_not_the_positions() -> None:
    made = producer()
    before = pool([NEVER_SCRAPED] * 3, bits=[0, 1, 5])
    made.pre_request(request(prompt(1)), before, 2)
    after = pool([NEVER_SCRAPED] * 2, bits=[5, 1], version=2)
    blocks = made.match(request(prompt(1)), after).blocks
    assert blocks is not None
    assert list(blocks) == [1, 0]
    assert list(only(after, 1).column(blocks)) == [0]
    elsewhere = made.match(request(prompt(1)), pool([NEVER_SCRAPED], bits=[7], version=3)).blocks
    assert elsewhere is not None
    assert list(elsewhere) == [0]


@pytest.mark.parametrize(
    ("parameters", "metrics", "capacity"),
    [
        ({"lruCapacityPerServer": 3}, NEVER_SCRAPED, 3),
        ({"lruCapacityPerServer": 3, "autoTune": False}, EndpointMetrics(block_size=64, num_blocks=5), 3),
        ({"lruCapacityPerServer": 3}, EndpointMetrics(block_size=64, num_blocks=5), 5),
        # 20 blocks of 16 tokens are 5 of ours.
        ({"lruCapacityPerServer": 3}, EndpointMetrics(block_size=16, num_blocks=20), 5),
        ({"lruCapacityPerServer": 3}, EndpointMetrics(block_size=16, num_blocks=1), 1),
        ({"lruCapacityPerServer": 3}, EndpointMetrics(num_blocks=5), 3),
        ({"lruCapacityPerServer": 3}, EndpointMetrics(block_size=64), 3),
        ({}, NEVER_SCRAPED, 9),
    ],
)
def test_capacity(parameters: dict[str, Any], metrics: EndpointMetrics, capacity: int) -> None:
    made = producer(**parameters)
    made.pre_request(request(prompt(9)), pool([metrics]), 0)
    assert len(made.index) == capacity


def test_capacity_is_of_the_picked_endpoint() -> None:
    made = producer()
    metrics = [EndpointMetrics(block_size=64, num_blocks=5), EndpointMetrics(block_size=64, num_blocks=2)]
    made.pre_request(request(prompt(9)), pool(metrics), 1)
    assert len(made.index) == 2


def test_an_endpoint_that_is_gone_is_forgotten_and_its_bit_starts_afresh() -> None:
    made, snapshot = producer(), idle(2)
    made.pre_request(request(prompt(3)), snapshot, 0)
    made.pre_request(request(prompt(1)), snapshot, 1)
    made.endpoint_removed(endpoint(1), snapshot.bits[0])
    assert len(made.index) == 1
    blocks = made.match(request(prompt(3)), snapshot).blocks
    assert blocks is not None
    assert list(blocks) == [0, 1]
    made.endpoint_removed(endpoint(2), snapshot.bits[1])
    assert len(made.index) == 0


def test_hits_are_observed_for_the_picked_endpoint() -> None:
    made, snapshot = producer(), idle(2)
    metrics = Metrics()
    made.connect(metrics, as_reference=False)
    ratio, size = [family.cell(made.name, made.type) for family in (metrics.prefix_hit_ratio, metrics.prefix_hit_bytes)]
    made.pre_request(request(prompt(2)), snapshot, 0)
    made.pre_request(request(prompt(4)), snapshot, 0)
    made.pre_request(request(prompt(4)), snapshot, 1)
    made.pre_request(request(b""), snapshot, 1)
    assert (sum(ratio.counts), ratio.total) == (3, 0.5)
    assert (sum(size.counts), size.total) == (3, 2 * 64 * 4)


def test_it_takes_part_in_two_stages() -> None:
    assert isinstance(producer(), PreRequest)
    assert isinstance(producer(), EndpointWatcher)


@pytest.mark.parametrize(
    "parameters",
    [{"blockSizeTokens": 0}, {"lruCapacityPerServer": 0}, {"maxPrefixTokensToMatch": -1}, {"autoTune": "yes"}, {"hashBlockSize": 64}],
)
def test_wrong_parameters_are_refused(parameters: dict[str, Any]) -> None:
    with pytest.raises(msgspec.ValidationError):
        producer(**parameters)
