"""What a request counts for while it is in flight (contract section 4.6), and that all of it is given back."""

from __future__ import annotations

import logging
from typing import Any

import pytest
from msgspec.structs import replace

from picker.endpoint import EndpointMetrics
from picker.errors import ConfigError
from picker.exchange import Cause, Exchange
from picker.loader import Options, load
from picker.metrics import Metrics
from picker.request import Charge, InferenceRequest
from picker.scheduling.inflight_load import InflightLoadProducer
from picker.scheduling.producers import ApproxPrefixCacheProducer
from picker.yaml_source import YamlSource
from tests.picker.scheduling.pool import FakeHandle, build, pool, request
from tests.picker.test_loader import HEAD, pipeline
from tests.picker.world import P, World, at, config

HEADERS = {":path": "/v1/completions"}


def producer(parameters: dict[str, Any] | None = None) -> InflightLoadProducer:
    handle = FakeHandle(approx_prefix_cache_producer=build(ApproxPrefixCacheProducer))
    made = build(InflightLoadProducer, parameters, handle, name="load")
    assert isinstance(made, InflightLoadProducer)
    return made


def asked(words: int, *, extra: int = 0, limit: int | None = None) -> InferenceRequest:
    """A prompt of so many words of four bytes."""
    made = request(b"abc " * words, extra=extra)
    made.body = replace(made.body, max_output_tokens=limit)
    return made


@pytest.mark.parametrize(
    ("parameters", "words", "extra", "limit", "tokens"),
    [
        ({}, 0, 0, None, 0),
        ({}, 100, 0, None, 100),
        ({}, 100, 50, None, 150),
        ({"outputRatio": 3}, 100, 0, None, 100),
        ({"addEstimatedOutputTokens": True}, 100, 0, None, 250),
        ({"addEstimatedOutputTokens": True, "outputRatio": 0}, 100, 0, None, 100),
        ({"addEstimatedOutputTokens": True, "outputRatio": 0.5}, 101, 0, None, 151),
        ({"addEstimatedOutputTokens": True, "maxEstimatedOutputTokens": 20}, 100, 0, None, 120),
        ({"addEstimatedOutputTokens": True, "maxEstimatedOutputTokens": 200}, 100, 0, None, 250),
        ({"addEstimatedOutputTokens": True}, 100, 0, 7, 107),
        ({"addEstimatedOutputTokens": True, "maxEstimatedOutputTokens": 5}, 100, 0, 7, 105),
        ({"addEstimatedOutputTokens": True}, 100, 0, 1000, 250),
    ],
)
def test_what_is_charged_to_a_cold_endpoint(parameters: dict[str, Any], words: int, extra: int, limit: int | None, tokens: int) -> None:
    made = asked(words, extra=extra, limit=limit)
    producer(parameters).pre_request(made, pool([EndpointMetrics()]), 0)
    assert made.charges == [Charge("load", tokens, 0)]


def test_only_what_the_endpoint_has_not_cached_is_charged() -> None:
    plugin, snapshot = producer({"addEstimatedOutputTokens": True}), pool([EndpointMetrics()] * 2)
    plugin.prefix.pre_request(asked(128), snapshot, 1)  # two blocks of 64
    for position, charge in ((0, Charge("load", 200 + 300, 0)), (1, Charge("load", 72 + 300, 128))):
        made = asked(200)
        plugin.pre_request(made, snapshot, position)
        assert made.charges == [charge]
    partial = asked(128)
    plugin.prefix.pre_request(asked(100), snapshot, 0)  # a block of 64 and one of 36
    again = asked(100)
    plugin.pre_request(again, snapshot, 0)
    plugin.pre_request(partial, snapshot, 1)
    # A partial block counts for no more than the prompt has.
    assert again.charges == [Charge("load", 0 + 150, 100)] and partial.charges == [Charge("load", 0 + 192, 128)]


def test_a_named_producer_is_the_one_it_asks() -> None:
    mine = build(ApproxPrefixCacheProducer, name="mine")
    made = build(InflightLoadProducer, {"prefixMatchInfoProducerName": "mine"}, FakeHandle(mine=mine))
    assert made.prefix is mine


@pytest.mark.parametrize(("given", "warned"), [({}, 0), ({"syncCrossReplicaState": False}, 0), ({"syncCrossReplicaState": True}, 1)])
def test_one_replica_is_one_replica(given: dict[str, Any], warned: int, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        producer(given)
    assert len([r for r in caplog.records if "syncCrossReplicaState has no effect" in r.getMessage()]) == warned


# ---- in a picker


def body(words: int) -> bytes:
    return b'{"model":"m","prompt":"' + b"abc " * words + b'"}'


def send(world: World, words: int) -> Exchange:
    made = world.director.handle(HEADERS, body(words), None, request_id="r", received_s=world.now)
    assert isinstance(made, Exchange)
    return made


ONE = config(scorers=("token-load-scorer",))
TWO = config(
    scorers=("token-load-scorer",),
    parameters="""\
- type: inflight-load-producer
- name: with-output
  type: inflight-load-producer
  parameters: {addEstimatedOutputTokens: true}
""",
)


def gauges(world: World) -> dict[str, tuple[float, float]]:
    """Requests and tokens in flight by producer."""
    page = world.page()
    found: dict[str, tuple[float, float]] = {}
    for sample in page.find("llm_d_epp_inflight_requests"):
        name = sample.labels["producer_name"]
        tokens = sum(s.value for s in page.find("llm_d_epp_inflight_tokens") if s.labels == sample.labels)
        requests, before = found.get(name, (0, 0))
        found[name] = (requests + sample.value, before + tokens)
    return found


def test_a_scorer_that_looks_at_tokens_gets_uncached_ones() -> None:
    world = World(P(0), config=ONE)
    first = send(world, 200)
    assert (world.load(at(0)).tokens, gauges(world)) == (200, {"inflight-load-producer": (1, 200)})
    second = send(world, 200)
    assert world.load(at(0)).tokens == 200  # all of it is cached
    third = send(world, 264)
    assert world.load(at(0)).tokens == 200 + 264 - 192  # the last block of the first prompt is a partial one
    for exchange in (first, second, third):
        exchange.response_chunk(b"x")
    assert world.load(at(0)).tokens == 0 and gauges(world) == {"inflight-load-producer": (3, 0)}
    for exchange in (first, second, third):
        exchange.close(Cause.COMPLETED)
    world.assert_idle()
    assert gauges(world) == {}


def test_without_such_a_scorer_whole_prompts_are_counted() -> None:
    world = World(P(0), config=config())
    first, second = send(world, 200), send(world, 200)
    assert first.request is not None and first.request.charges is None
    assert world.load(at(0)).tokens == 400
    first.close(Cause.COMPLETED)
    second.close(Cause.DISCONNECTED)
    world.assert_idle()


@pytest.mark.parametrize("cause", list(Cause))
@pytest.mark.parametrize("started", [False, True])
def test_several_producers_are_settled_once_whatever_ends_a_request(cause: Cause, started: bool) -> None:
    world = World(P(0), P(1), config=TWO)
    exchange = send(world, 100)
    assert gauges(world) == {"inflight-load-producer": (1, 100), "with-output": (1, 250)}
    assert sum(state.load.tokens for state in world.datastore.states()) == 100
    if started:
        exchange.response_chunk(b"x")
        exchange.response_chunk(b"y")
        assert gauges(world) == {"inflight-load-producer": (1, 0), "with-output": (1, 0)}
    for _ in range(2):
        exchange.close(cause)
        world.assert_idle()
        assert gauges(world) == {}


def test_a_fallback_endpoint_has_cached_nothing() -> None:
    world = World(P(0), P(1, 5), config=TWO)
    send(world, 200).close(Cause.COMPLETED)
    exchange = send(world, 200)
    assert exchange.decision is not None
    (picked,) = exchange.decision.result.endpoints
    other = at(1) if picked.host_port == at(0) else at(0)
    expected = 0 if exchange.request is not None and exchange.request.charges and exchange.request.charges[0].cached_tokens else 200
    assert world.load(picked.host_port).tokens == expected
    exchange.begin_response(200, None, streaming=False, served=other)
    assert (world.load(picked.host_port).requests, world.load(other).requests, world.load(other).tokens) == (0, 1, 200)
    assert gauges(world) == {"inflight-load-producer": (1, 200), "with-output": (1, 500)}
    exchange.close(Cause.COMPLETED)
    world.assert_idle()
    assert gauges(world) == {}


def test_a_name_that_is_no_prefix_producer_is_refused() -> None:
    text = config(parameters="- type: inflight-load-producer\n  parameters: {prefixMatchInfoProducerName: queue-scorer}\n")
    with pytest.raises(
        ConfigError, match="'inflight-load-producer' needs a approx-prefix-cache-producer, but 'queue-scorer' is a queue-scorer"
    ):
        World(P(0), config=text)


def test_the_load_producer_finds_the_first_prefix_cache_whatever_its_name() -> None:
    made = pipeline("plugins: [{type: inflight-load-producer}, {type: approx-prefix-cache-producer, name: mine}]")
    assert [p.name for p in made.producers] == ["mine"]
    assert made.built["inflight-load-producer"].plugin.prefix is made.producers[0]
    alone = pipeline("plugins: [{type: inflight-load-producer}]")
    assert alone.built["inflight-load-producer"].plugin.prefix is alone.producers[0]


def test_a_load_producer_is_not_taken_over_with_a_prefix_cache_that_is_gone() -> None:
    metrics, body = Metrics(), "plugins: [{type: inflight-load-producer}, {type: approx-prefix-cache-producer, name: %s}]"
    first = load(YamlSource(HEAD + body % "a", "x"), metrics)
    same = load(YamlSource(HEAD + body % "a", "x"), metrics, Options(), first)
    other = load(YamlSource(HEAD + body % "b", "x"), metrics, Options(), same)
    loads = [made.built["inflight-load-producer"].plugin for made in (first, same, other)]
    assert loads[0] is loads[1] is not loads[2]
    assert loads[2].prefix is other.producers[0]
