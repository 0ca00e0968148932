"""What is in flight: tickets that can be given back any number of times, and the part of the load no scrape has seen yet."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from picker.accounting.inflight import InFlight, Ticket
from picker.endpoint import Endpoint, EndpointLoad
from picker.metrics import Metrics
from picker.prompt import Prompt
from picker.request import InferenceRequest, ParsedBody
from tests.support.prometheus import Page

POD = Endpoint("pod", "10.0.0.1", 8000, "ns")
FAIRNESS = ("a", "b")


def request(tokens: int, fairness_id: str = "a") -> InferenceRequest:
    made = InferenceRequest("r", "/", {}, ParsedBody(prompt=Prompt(b"abcd" * tokens)), "m", "m", fairness_id=fairness_id)
    assert made.prompt_tokens == tokens
    return made


def test_the_gauges_of_a_label_set_exist_while_something_is_in_flight() -> None:
    metrics = Metrics()
    inflight, load = InFlight(metrics), EndpointLoad()
    one, two = inflight.open(POD, load, request(10)), inflight.open(POD, load, request(5))
    labels = {
        "endpoint_name": "pod", "namespace": "ns", "producer_name": "inflight-load-producer", "fairness_id": "a", "priority": "0",
    }  # fmt: skip

    def gauges() -> tuple[list[float], list[float]]:
        page = Page(metrics.registry)
        requests, tokens = page.find("llm_d_epp_inflight_requests"), page.find("llm_d_epp_inflight_tokens")
        assert all(sample.labels == labels for sample in (*requests, *tokens))
        return [s.value for s in requests], [s.value for s in tokens]

    assert gauges() == ([2], [15])
    one.first_token()
    one.first_token()
    assert gauges() == ([2], [5])
    one.close()
    one.close()
    one.first_token()
    assert gauges() == ([1], [5])
    two.close()
    assert gauges() == ([], [])
    assert (load.requests, load.tokens, load.unseen) == (0, 0, 0)


@given(st.lists(st.tuples(st.integers(0, 3), st.sampled_from(["open", "first_token", "close"]), st.sampled_from(FAIRNESS)), max_size=60))
def test_tickets_in_any_order_add_up(steps: list[tuple[int, str, str]]) -> None:
    metrics = Metrics()
    inflight, load = InFlight(metrics), EndpointLoad()
    tickets: dict[int, Ticket] = {}
    held: dict[int, tuple[str, int]] = {}
    for slot, action, fairness in steps:
        if action == "open" and slot not in held:
            tickets[slot] = inflight.open(POD, load, request(slot + 1, fairness))
            held[slot] = fairness, slot + 1
        elif action == "first_token" and slot in tickets:
            tickets[slot].first_token()
            if slot in held:
                held[slot] = held[slot][0], 0
        elif action == "close" and slot in tickets:
            tickets[slot].close()
            held.pop(slot, None)
        page = Page(metrics.registry)
        assert load.requests == load.unseen == len(held) == page.value("llm_d_epp_inflight_requests")
        assert load.tokens == sum(tokens for _, tokens in held.values()) == page.value("llm_d_epp_inflight_tokens")
        for name in FAIRNESS:
            expected = [sum(1 for label, _ in held.values() if label == name)]
            assert [s.value for s in page.find("llm_d_epp_inflight_requests", fairness_id=name)] == [n for n in expected if n]


class Unseen(RuleBasedStateMachine):
    """Against the definition: `unseen` = open requests that were opened after the last scrape that succeeded began."""

    def __init__(self) -> None:
        super().__init__()
        self.load = EndpointLoad()
        self.clock = 0
        self.open: list[tuple[int, int, int]] = []  # mark, when, tokens
        self.begun: int | None = None
        self.seen_until = -1

    def _tick(self) -> int:
        self.clock += 1
        return self.clock

    @rule(tokens=st.integers(0, 9))
    def open_request(self, tokens: int) -> None:
        self.open.append((self.load.open_request(tokens), self._tick(), tokens))

    @precondition(lambda self: self.open)
    @rule(data=st.data())
    def close_request(self, data: st.DataObject) -> None:
        mark, _, tokens = self.open.pop(data.draw(st.integers(0, len(self.open) - 1)))
        self.load.release_tokens(tokens)
        self.load.close_request(mark)

    @precondition(lambda self: self.begun is None)
    @rule()
    def scrape_starts(self) -> None:
        self.begun = self._tick()
        self.load.scrape_started()

    @precondition(lambda self: self.begun is not None)
    @rule()
    def scrape_succeeds(self) -> None:
        assert self.begun is not None
        self.seen_until, self.begun = self.begun, None
        self.load.scrape_succeeded()

    @precondition(lambda self: self.begun is not None)
    @rule()
    def scrape_fails(self) -> None:
        self.begun = None

    @invariant()
    def is_what_it_is_defined_to_be(self) -> None:
        assert self.load.requests == len(self.open)
        assert self.load.tokens == sum(tokens for _, _, tokens in self.open)
        assert self.load.unseen == sum(1 for _, when, _ in self.open if when > self.seen_until)


TestUnseen = Unseen.TestCase
