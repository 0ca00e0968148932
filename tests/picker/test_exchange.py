"""One request's life: settled once, on the endpoint that really served it, with times and usage fed to the right counters."""

from __future__ import annotations

import itertools
from collections.abc import Callable

import pytest

from picker.exchange import Cause, Exchange
from picker.result import Usage
from tests.picker.world import P, World, at, config

PODS = (P(0), P(1, 5))
HEADERS = {":path": "/v1/completions"}
BODY = b'{"model":"m","prompt":"' + b"word " * 100 + b'"}'


class Reader:
    """Reads no usage but what it is given."""

    def __init__(self, usage: Usage | None = None) -> None:
        self.usage = usage
        self.chunks: list[bytes] = []
        self.finished = 0

    def feed(self, chunk: bytes) -> None:
        self.chunks.append(chunk)

    def finish(self) -> Usage | None:
        self.finished += 1
        return self.usage


def begin(world: World) -> Exchange:
    """A request on pod 0."""
    exchange = world.director.handle(HEADERS, BODY, None, request_id="r", received_s=world.now)
    assert world.load(at(0)).requests == 1
    return exchange


REPORT = 'JSON {"named_metrics": {"num_requests_waiting": 9, "kv_cache_usage_perc": 0.5}}'


def reporting(*, destinations: int = 1) -> World:
    """Pods that can report their load with an answer."""
    parameters = f"- type: max-score-picker\n  parameters: {{maxNumOfEndpoints: {destinations}}}\n"
    text = config(parameters=parameters) + "  - pluginRef: max-score-picker\n"
    return World(P(0, reports_load=True), P(1, 5, reports_load=True), config=text)


@pytest.mark.parametrize(
    ("destinations", "served", "told"),
    [(1, None, at(0)), (1, at(0), at(0)), (1, at(1), at(1)), (1, at(77), None), (2, None, None), (2, at(0), at(0)), (2, at(1), at(1))],
)
def test_a_load_report_goes_to_the_endpoint_that_made_it(destinations: int, served: str | None, told: str | None) -> None:
    world = reporting(destinations=destinations)
    exchange = begin(world)
    assert exchange.ask_for_report()
    exchange.begin_response(200, None, streaming=False, served=served, report=REPORT)
    assert {address for address in (at(0), at(1)) if world.told(address) == (9, 0.5)} == ({told} if told else set())
    exchange.close(Cause.COMPLETED)
    world.assert_idle()


def test_who_is_asked_for_a_report() -> None:
    streamed = BODY.replace(b"{", b'{"stream":true,', 1)
    for world, body, wanted in ((reporting(), BODY, True), (reporting(), streamed, False), (World(*PODS), BODY, False)):
        exchange = world.director.handle(HEADERS, body, None, request_id="r", received_s=world.now)
        assert exchange.ask_for_report() is wanted
        exchange.begin_response(200, None, streaming=False, served=None, report=REPORT)
        assert (world.reports.taken == 1) is wanted
        exchange.close(Cause.COMPLETED)
    world = reporting()
    asked = []
    for _ in range(6):
        exchange = begin(world)
        asked.append(exchange.ask_for_report())
        exchange.close(Cause.COMPLETED)
        world.now += world.ledger.report_interval_s / 2
    assert asked == [True, False] * 3
    world.ledger.take_report = None
    assert not begin(world).ask_for_report()
    assert not world.director.response_only().ask_for_report()


def running(world: World) -> float:
    return world.page().value("llm_d_epp_request_running", model_name="m")


@pytest.mark.parametrize("first", Cause)
@pytest.mark.parametrize("second", Cause)
def test_only_the_first_close_counts(first: Cause, second: Cause) -> None:
    world = World(*PODS)
    exchange = begin(world)
    assert running(world) == 1 and not exchange.settled
    exchange.close(first)
    before = world.page().samples
    exchange.close(second)
    assert exchange.settled
    world.assert_idle()
    assert world.outcomes() == {first.value or "ok": 1}
    assert world.page().samples == before


STEPS: dict[str, Callable[[Exchange], None]] = {
    "begin": lambda e: e.begin_response(200, Reader(Usage(1, 2, 3)), streaming=True, served=None),
    "move": lambda e: e.begin_response(200, Reader(), streaming=False, served=at(1)),
    "chunk": lambda e: e.response_chunk(b"data"),
    "nothing": lambda e: e.response_chunk(b""),
    "close": lambda e: e.close(Cause.COMPLETED),
    "break": lambda e: e.close(Cause.DISCONNECTED),
}


def test_any_order_of_calls_settles_once() -> None:
    for steps in itertools.permutations(STEPS, 4):
        world = World(*PODS)
        exchange = begin(world)
        for step in steps:
            STEPS[step](exchange)
        exchange.close(Cause.COMPLETED)
        world.assert_idle()
        assert sum(world.outcomes().values()) == 1, steps


def test_the_load_moves_to_the_endpoint_that_serves() -> None:
    world = World(*PODS)
    exchange = begin(world)
    tokens = world.load(at(0)).tokens
    assert tokens > 0
    exchange.begin_response(200, None, streaming=False, served=at(1))
    assert (world.load(at(0)).requests, world.load(at(0)).tokens, world.load(at(0)).unseen) == (0, 0, 0)
    assert (world.load(at(1)).requests, world.load(at(1)).tokens, world.load(at(1)).unseen) == (1, tokens, 1)
    page = world.page()
    assert page.value("llm_d_epp_inflight_requests", endpoint_name="pod-1-8000") == 1
    assert not page.find("llm_d_epp_inflight_requests", endpoint_name="pod-0-8000")
    exchange.close(Cause.COMPLETED)
    world.assert_idle()
    assert exchange.decision is not None and exchange.decision.outcome is not None
    assert exchange.decision.outcome.served == at(1)


@pytest.mark.parametrize("served", [None, "", at(0), at(77), "nonsense"])
def test_the_load_stays_when_the_proxy_says_nothing_new(served: str | None) -> None:
    world = World(*PODS)
    exchange = begin(world)
    exchange.begin_response(200, None, streaming=False, served=served)
    assert world.load(at(0)).requests == 1
    exchange.close(Cause.COMPLETED)
    world.assert_idle()


def test_the_prompt_weighs_until_the_first_bytes_of_the_answer() -> None:
    world = World(*PODS)
    exchange = begin(world)
    exchange.begin_response(200, None, streaming=True, served=None)
    exchange.response_chunk(b"")
    assert world.load(at(0)).tokens > 0
    for _ in range(2):
        exchange.response_chunk(b"x")
        assert (world.load(at(0)).requests, world.load(at(0)).tokens) == (1, 0)
    exchange.close(Cause.COMPLETED)
    world.assert_idle()


def test_a_response_that_is_not_200_is_the_model_servers_error() -> None:
    for status, cause, code in ((500, Cause.COMPLETED, "ModelServerError"), (404, Cause.DISCONNECTED, "Disconnected")):
        world = World(*PODS)
        exchange = begin(world)
        exchange.begin_response(status, None, streaming=False, served=None)
        exchange.close(cause)
        assert world.outcomes() == {code: 1}


def test_times_and_tokens_are_those_of_the_clock_and_of_the_reader() -> None:
    world = World(*PODS)
    reader = Reader(Usage(7, 11, 18, 3))
    exchange = begin(world)
    world.now += 1
    exchange.begin_response(200, reader, streaming=True, served=None)
    for seconds, chunk in ((1.0, b"a"), (0.5, b"bc"), (1.5, b"d")):
        world.now += seconds
        exchange.response_chunk(chunk)
    world.now += 1
    exchange.close(Cause.COMPLETED)
    assert reader.chunks == [b"a", b"bc", b"d"] and reader.finished == 1
    page = world.page()
    sums = {
        "request_duration_seconds": 5.0,
        "request_ttft_seconds": 2.0,
        "request_streaming_itl_seconds": 2.0,
        "request_streaming_tpot_seconds": 0.2,
        "request_ntpot_seconds": 5 / 11,
        "request_input_tokens": 7,
        "request_output_tokens": 11,
        "request_cached_tokens": 3,
        "response_size_bytes": 4,
        "request_size_bytes": len(BODY),
    }
    for name, value in sums.items():
        assert page.value(f"llm_d_epp_{name}_sum", model_name="m") == pytest.approx(value), name
        assert page.value(f"llm_d_epp_{name}_count", model_name="m") == (2 if "itl" in name else 1), name
    (decision,) = world.decisions.find(request_id="r")
    record = decision.as_dict()
    assert {key: record[key] for key in ("served", "cause", "status", "prompt_tokens", "completion_tokens", "cached_tokens")} == {
        "served": at(0), "cause": "completed", "status": 200, "prompt_tokens": 7, "completion_tokens": 11, "cached_tokens": 3,
    }  # fmt: skip
    assert (record["ttft_s"], record["total_s"]) == (2.0, 5.0)


def test_a_broken_off_request_has_no_latency_to_boast_of() -> None:
    world = World(*PODS)
    exchange = begin(world)
    exchange.begin_response(200, Reader(Usage(7, 11, 18)), streaming=True, served=None)
    exchange.response_chunk(b"a")
    exchange.close(Cause.DISCONNECTED)
    page = world.page()
    assert page.value("llm_d_epp_request_ttft_seconds_count") == page.value("llm_d_epp_request_ntpot_seconds_count") == 0
    assert page.value("llm_d_epp_request_input_tokens_count") == page.value("llm_d_epp_request_duration_seconds_count") == 1


def test_a_response_without_a_request_counts_usage_and_nothing_else() -> None:
    world = World()
    exchange = world.director.response_only()
    exchange.begin_response(500, Reader(Usage(7, 10, 17)), streaming=False, served=at(0))
    exchange.response_chunk(b"x")
    exchange.close(Cause.COMPLETED)
    world.assert_idle()
    page = world.page()
    assert page.value("llm_d_epp_request_input_tokens_sum", model_name="") == 7
    assert page.value("llm_d_epp_request_total") == page.value("llm_d_epp_request_error_total") == 0
    assert page.value("llm_d_epp_request_duration_seconds_count") == 0
