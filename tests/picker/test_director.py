"""The stages in order: what a request becomes, which labels it is counted under, and how a burst is spread."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping

import pytest

from picker.errors import BadRequest, Internal, Rejected, Unavailable
from picker.exchange import Cause, Exchange
from tests.picker.world import DEFAULT_PARSERS, PASSTHROUGH, P, World, at, config

PATH = {":path": "/v1/completions"}
BODY = b'{"model":"m","prompt":"hello world"}'
DEFAULT_PARSERS_AND_PREFIX = config("openai-parser", scorers=("prefix-cache-scorer",))
QUEUE_AND_KV = config("openai-parser", scorers=("queue-scorer", "kv-cache-utilization-scorer"))


def handle(
    world: World, headers: Mapping[str, str] = PATH, body: bytes = BODY, subset: list[str] | None = None, name: str = "r"
) -> Exchange:
    return world.director.handle(headers, body, subset, request_id=name, received_s=world.now)


def destination(exchange: Exchange) -> str:
    assert exchange.decision is not None
    return exchange.decision.result.endpoints[0].host_port


@pytest.mark.parametrize(
    ("headers", "field", "value"),
    [
        ({}, "fairness_id", "default-flow"),
        ({"x-gateway-inference-fairness-id": "old"}, "fairness_id", "old"),
        ({"x-gateway-inference-fairness-id": "old", "x-llm-d-inference-fairness-id": "new"}, "fairness_id", "new"),
        ({"x-gateway-inference-fairness-id": "old", "x-llm-d-inference-fairness-id": ""}, "fairness_id", "old"),
        ({"x-gateway-inference-objective": "old"}, "objective", "old"),
        ({"x-gateway-inference-objective": "old", "x-llm-d-inference-objective": "new"}, "objective", "new"),
        ({}, "target_model", "m"),
        ({"x-gateway-model-name-rewrite": "old"}, "target_model", "old"),
        ({"x-gateway-model-name-rewrite": "old", "x-llm-d-model-name-rewrite": "new"}, "target_model", "new"),
    ],
)
def test_control_headers_new_name_before_old(headers: dict[str, str], field: str, value: str) -> None:
    request = handle(World(P(0)), {**PATH, **headers}).request
    assert request is not None and getattr(request, field) == value
    assert request.model == "m"


@pytest.mark.parametrize(
    ("headers", "body", "ok"),
    [
        ({":path": "/v1/chat/completions?x=1"}, b'{"model":"m","messages":[{"role":"user","content":"x"}]}', True),
        ({"x-original-path": "/v1/embeddings"}, b'{"model":"m","input":"x"}', True),
        ({"x-forwarded-path": "/v1/embeddings"}, b'{"model":"m","input":"x"}', True),
        ({}, BODY, True),
        ({":path": "/v1/chat/completions"}, BODY, False),
    ],
)
def test_the_parser_is_chosen_by_path(headers: dict[str, str], body: bytes, ok: bool) -> None:
    world = World(P(0))
    if ok:
        handle(world, headers, body).close(Cause.COMPLETED)
    else:
        with pytest.raises(BadRequest):
            handle(world, headers, body)
    world.assert_idle()


def test_requests_are_counted_under_what_they_asked_for_and_what_they_got() -> None:
    world = World(P(0))
    handle(world, {**PATH, "x-llm-d-model-name-rewrite": "target", "x-llm-d-inference-fairness-id": "team"})
    labels = {"model_name": "m", "target_model_name": "target", "fairness_id": "team", "priority": "0"}
    page = world.page()
    for name in ("request_total", "request_running", "request_size_bytes_count"):
        assert page.value(f"llm_d_epp_{name}", **labels) == 1, name
    assert page.value("llm_d_epp_scheduler_attempts_total", status="success", target_model_name="target", endpoint_name="pod-0-8000") == 1
    assert page.value("inference_objective_request_total", model_name="m", target_model_name="target", priority="0") == 1
    assert page.value("inference_objective_running_requests", model_name="m") == 1


def test_a_name_as_long_as_the_body_is_neither_recorded_nor_shown_whole() -> None:
    world = World(P(0))
    exchange = handle(world, body=b'{"model":"%b","prompt":"x"}' % (b"m" * 100_000))
    assert exchange.request is not None and len(exchange.request.target_model) == 100_000
    assert exchange.decision is not None and len(exchange.decision.model) == len(exchange.decision.target_model) == 256
    exchange.close(Cause.COMPLETED)
    assert world.page().value("llm_d_epp_request_total", model_name="other") == 1


def test_an_open_exchange_keeps_no_prompt() -> None:
    """Answers stream for minutes: what the decision needed goes once it is made; what the books need stays."""
    world = World(P(0), P(1), config=DEFAULT_PARSERS_AND_PREFIX)
    exchange = handle(world, body=b'{"model":"m","prompt":"%b"}' % (b"word " * 1_000))
    request = exchange.request
    assert request is not None and request.prompt_tokens == 1250
    assert (request.body.prompt.data, request.working) == (b"", {})
    # A fallback that answers takes the tokens over.
    exchange.begin_response(200, None, streaming=True, served=at(1))
    assert world.load(at(1)).tokens == 1250
    exchange.close(Cause.COMPLETED)
    world.assert_idle()


def test_what_a_plugin_cannot_rewrite_is_not_rewritten() -> None:
    request = handle(World(P(0), config=PASSTHROUGH), {**PATH, "x-llm-d-model-name-rewrite": "target"}, b"opaque").request
    assert request is not None and request.target_model == request.model == ""


def test_refusals_open_nothing() -> None:
    world = World(P(0), config=config("openai-parser", scorers=("encode-filter", "queue-scorer")))
    cases: list[tuple[type[Exception], bytes, list[str] | None]] = [
        (BadRequest, b"{}", None),
        (Unavailable, BODY, []),
        (Rejected, BODY, None),
    ]
    for refusal, body, subset in cases:
        with pytest.raises(refusal):
            handle(world, body=body, subset=subset)
    world.assert_idle()
    assert world.outcomes() == {"BadRequest": 1, "ServiceUnavailable": 1, "ResourceExhausted": 1}
    assert list(world.decisions.find()) == []
    assert world.page().value("llm_d_epp_scheduler_attempts_total", status="failure") == 1


def test_any_endpoint_is_one_of_those_that_are_alive() -> None:
    world = World(P(0), P(1), P(2))
    world.datastore.mark_alive(P(1).endpoint, False)
    chosen = Counter(world.director.any_endpoint(None).host_port for _ in range(200))
    assert chosen.keys() == {at(0), at(2)}
    assert world.director.any_endpoint([at(2), at(1)]).host_port == at(2)
    with pytest.raises(Unavailable):
        world.director.any_endpoint([at(1)])
    with pytest.raises(Internal, match="no pods available in datastore"):
        World().director.any_endpoint(None)
    assert world.outcomes() == {}


# ---- bursts: many requests between two scrapes -----------------------------------------------------------------------------------


@pytest.mark.parametrize("scorers", [("queue-scorer",), ("queue-scorer", "kv-cache-utilization-scorer"), ("running-requests-size-scorer",)])
def test_a_burst_between_two_scrapes_is_spread_evenly_over_equals(scorers: tuple[str, ...]) -> None:
    world = World(*[P(i, 3, 0.4) for i in range(4)], config=config("openai-parser", scorers=scorers))
    exchanges = [handle(world, name=str(i)) for i in range(100)]
    assert Counter(map(destination, exchanges)) == {at(i): 25 for i in range(4)}
    for exchange in exchanges:
        exchange.close(Cause.COMPLETED)
    world.assert_idle()


def test_a_burst_of_different_prompts_is_spread_under_the_default_configuration() -> None:
    world = World(*[P(i) for i in range(4)], config=DEFAULT_PARSERS)
    chosen = Counter(destination(handle(world, body=b'{"model":"m","prompt":"%d %s"}' % (i, b"x" * 600))) for i in range(100))
    assert chosen == {at(i): 25 for i in range(4)}


def test_a_slightly_better_endpoint_does_not_get_the_whole_burst() -> None:
    world = World(P(0, 0, 0.30), P(1, 0, 0.31), P(2, 0, 0.31), P(3, 0, 0.31), config=QUEUE_AND_KV)
    chosen = Counter(destination(handle(world, name=str(i))) for i in range(100))
    assert destination(handle(World(P(0, 0, 0.30), P(1, 0, 0.31), config=QUEUE_AND_KV))) == at(0)
    assert chosen.keys() == {at(i) for i in range(4)}
    assert max(chosen.values()) <= 30, chosen


def test_a_longer_queue_is_filled_up_to_last() -> None:
    world = World(P(0, 20), P(1, 0), P(2, 0), config=config("openai-parser", scorers=("queue-scorer",)))
    first = Counter(destination(handle(world)) for _ in range(40))
    assert first == {at(1): 20, at(2): 20}
    assert Counter(destination(handle(world)) for _ in range(30)) == {at(i): 10 for i in range(3)}


def test_what_a_scrape_has_seen_is_not_counted_twice() -> None:
    world = World(P(0), P(1), config=config("openai-parser", scorers=("queue-scorer",)))
    for _ in range(10):
        handle(world, subset=[at(0)])
    world.load(at(0)).scrape_started()
    world.load(at(0)).scrape_succeeded()
    world.datastore.report(P(0).endpoint, P(0, 5).metrics)  # five of the ten run, five wait
    assert Counter(destination(handle(world)) for _ in range(5)) == {at(1): 5}
    assert Counter(destination(handle(world)) for _ in range(10)) == {at(0): 5, at(1): 5}
