"""Policies of queues, and the data layer: what a foreign plugin gets wrong stops nobody's turn, and is counted."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from math import inf, nan
from typing import Any

import pytest

from picker.errors import ConfigError
from picker.foreign.breaker import FIRST_PAUSE_S, STRIKES
from picker.plugin import DataSource, Extracted, FairnessPolicy
from tests.picker.foreign.setting import Workshop, boom
from tests.picker.scheduling.pool import endpoint, request


@pytest.fixture
def shop() -> Workshop:
    return Workshop()


def made(shop: Workshop, method: str, does: Callable[..., Any]) -> Any:
    """A plugin with one method of one, two or three arguments."""
    methods = {
        "key": lambda self, item: does(item),
        "evictable": lambda self, request: does(request),
        "ceilings": lambda self, priorities, saturation: does(priorities, saturation),
        "eviction_key": lambda self, request, opened_s: does(request, opened_s),
        "extract": lambda self, endpoint, body: does(endpoint, body),
        "endpoint_event": lambda self, event, endpoint: does(event, endpoint),
    }
    return shop.make(type("Made", (), {method: methods[method]}))


# ---- orders


@pytest.mark.parametrize(
    ("returned", "key"),
    [
        (1, (1,)),
        (-2.5, (-2.5,)),
        ((1, 2.0), (1, 2.0)),
        ([3, -inf], (3, -inf)),
        (True, (True,)),
    ],
)
@pytest.mark.parametrize("method", ["key", "eviction_key"])
def test_keys_can_always_be_compared(shop: Workshop, method: str, returned: Any, key: tuple[float, ...]) -> None:
    plugin = made(shop, method, lambda *_: returned)
    arguments = [None] if method == "key" else [request(), 5.0]
    assert getattr(plugin, method)(*arguments) == key
    assert shop.errors() == {}


@pytest.mark.parametrize("does", [boom, *[lambda *_, v=v: v for v in (None, "a", nan, (), (1, nan), (1, "a"), 1j, {})]])
def test_a_broken_ordering_is_the_order_of_arrival_behind_the_others(shop: Workshop, does: Callable[..., Any]) -> None:
    plugin = made(shop, "key", does)
    assert plugin.key(None) == (inf,) > (5.0, 3)
    assert sum(shop.errors().values()) == 1


@pytest.mark.parametrize("does", [boom, lambda *_: None, lambda *_: 1, lambda *_: "yes"])
def test_with_a_broken_filter_nobody_is_taken_away(shop: Workshop, does: Callable[..., Any]) -> None:
    plugin = made(shop, "evictable", does)
    assert [plugin.evictable(request()) for _ in range(10)] == [False] * 10
    assert shop.taken_out() == ["EvictionFilter"]


def test_who_may_be_taken_away(shop: Workshop) -> None:
    plugin = made(shop, "evictable", lambda request: request.priority < 0)
    assert (plugin.evictable(request(priority=-1)), plugin.evictable(request())) == (True, False)


def test_a_broken_eviction_ordering_is_ours_behind_the_others(shop: Workshop) -> None:
    plugin = made(shop, "eviction_key", boom)
    keys = [plugin.eviction_key(request(priority=p), at) for p, at in ((-1, 7.0), (-2, 5.0), (-1, 9.0))]
    assert sorted(range(3), key=keys.__getitem__) == [1, 2, 0]
    assert all(key > (1e9, 1e9) for key in keys)


# ---- limits


@pytest.mark.parametrize("returned", [[1.0, 0.5], (1, 0), [inf, -1.0]])
def test_ceilings(shop: Workshop, returned: Any) -> None:
    assert made(shop, "ceilings", lambda p, s: returned).ceilings([5, 0], 0.5) == returned
    assert shop.errors() == {}


@pytest.mark.parametrize("does", [boom, *[lambda *_, v=v: v for v in (None, [1.0], [1.0] * 3, [1.0, nan], ["a", "b"], "ab", {1: 1, 2: 2})]])
def test_a_broken_usage_limit_is_one_for_all(shop: Workshop, does: Callable[..., Any]) -> None:
    assert made(shop, "ceilings", does).ceilings([5, 0], 0.5) == [1.0, 1.0]
    assert sum(shop.errors().values()) == 1


# ---- whose turn


class Flow:
    def __init__(self, name: str) -> None:
        self.fairness_id = name
        self.requests = 1

    def head(self) -> Any:
        return None

    def __repr__(self) -> str:
        return self.fairness_id


A, B, C = Flow("a"), Flow("b"), Flow("c")


class Last:
    """Of all flows the one that came last."""

    def __init__(self, policy: Any) -> None:
        self.flows: list[Any] = []
        self.log: list[str] = []
        self.policy = policy

    def add(self, flow: Any) -> None:
        self._told("add", flow)
        self.flows.append(flow)

    def moved(self, flow: Any) -> None:
        self._told("moved", flow)

    def remove(self, flow: Any) -> None:
        self._told("remove", flow)
        self.flows.remove(flow)

    def served(self, flow: Any) -> None:
        self._told("served", flow)

    def _told(self, what: str, flow: Any) -> None:
        self.log.append(f"{what} {flow}")
        if self.policy.broken == what:
            boom()

    def next(self, now_s: float) -> Any:
        if self.policy.broken == "next":
            boom()
        return self.policy.says(self.flows) if self.policy.says else self.flows[-1]


class Fair:
    def __init__(self, name: str, parameters: Any, handle: Any) -> None:
        self.made: list[Last] = []
        self.broken = ""
        self.says: Callable[[list[Any]], Any] | None = None

    def queue(self) -> Any:
        if self.broken == "queue":
            boom()
        self.made.append(Last(self))
        return self.made[-1]


def test_a_fairness_policy_decides(shop: Workshop) -> None:
    policy = shop.make(Fair)
    assert isinstance(policy, FairnessPolicy)
    queue = policy.queue()
    assert queue.next(0.0) is None
    for flow in (A, B, C):
        queue.add(flow)
    assert queue.next(0.0) is C
    queue.served(C)
    queue.moved(A)
    queue.remove(C)
    assert queue.next(0.0) is B
    assert policy.made[0].log == ["add a", "add b", "add c", "served c", "moved a", "remove c"]
    assert (len(policy.made), shop.errors()) == (1, {})
    assert policy.queue() is not queue, "each band has its own"


def test_flows_have_their_turns_while_a_policy_is_out_and_it_catches_up(shop: Workshop) -> None:
    policy = shop.make(Fair)
    queue = policy.queue()
    for flow in (A, B):
        queue.add(flow)
    policy.broken = "next"
    turns = []
    for _ in range(8):
        turns.append(flow := queue.next(0.0))
        queue.served(flow)
    assert turns == [A, B] * 4, "the one whose turn is longest ago"
    assert shop.taken_out() == ["FairnessPolicy"]
    assert shop.errors() == {("FairnessPolicy", "raised"): STRIKES}
    queue.remove(B)
    queue.add(C)
    policy.broken = ""
    assert queue.next(0.0) is A
    shop.now_s += FIRST_PAUSE_S
    assert queue.next(0.0) is C
    assert policy.made[-1].flows == [A, C], "a new queue, that has missed nothing"
    assert shop.taken_out() == []


@pytest.mark.parametrize("broken", ["queue", "add", "remove", "served", "moved"])
def test_a_queue_that_missed_something_is_made_anew(shop: Workshop, broken: str) -> None:
    policy = shop.make(Fair)
    queue = policy.queue()
    if broken not in ("queue", "add"):
        queue.add(A)
        queue.add(B)
    policy.broken = broken
    if broken in ("queue", "add"):
        queue.add(A)
        queue.add(B)
    else:
        getattr(queue, broken)(B)
    policy.broken = ""
    if broken == "remove":
        queue.add(C)
    flow = queue.next(0.0)
    assert flow is {"remove": C}.get(broken, B)
    assert policy.made[-1].flows == ([A, C] if broken == "remove" else [A, B])
    assert set(shop.errors()) == {("FairnessPolicy", "raised")}


@pytest.mark.parametrize("says", [lambda flows: None, lambda flows: C, lambda flows: "a", lambda flows: Flow("a")])
def test_only_a_flow_that_waits_can_have_its_turn(shop: Workshop, says: Callable[..., Any]) -> None:
    policy = shop.make(Fair)
    queue = policy.queue()
    queue.add(A)
    queue.add(B)
    policy.says = says
    assert queue.next(0.0) is A
    assert shop.errors() == {("FairnessPolicy", "invalid"): 1}


def test_a_slow_queue_is_taken_out(shop: Workshop) -> None:
    policy = shop.make(Fair)
    queue = policy.queue()
    queue.add(A)
    queue.add(B)

    def slow(flows: list[Any]) -> Any:
        shop.now_s += 0.006
        return flows[-1]

    policy.says = slow
    assert [queue.next(0.0) for _ in range(7)] == [B] * 5 + [A] * 2
    assert shop.errors() == {("FairnessPolicy", "slow"): 5}


def test_dispatched_belongs_to_a_fairness_policy(shop: Workshop) -> None:
    class Told:
        def dispatched(self, fairness_id: str, waited_s: float, now_s: float) -> None: ...

    with pytest.raises(ConfigError, match="has 'dispatched' and lacks 'queue': it is for fairness policies"):
        shop.make(Told)


# ---- the data layer


@pytest.mark.parametrize("method", ["extract", "endpoint_event"])
def test_an_extractor_that_fails_is_told_to_the_data_layer(shop: Workshop, method: str) -> None:
    answers: list[Any] = [Extracted(waiting=1), None, {"waiting": 1}]
    plugin = made(shop, method, lambda *_: answers.pop(0) if answers else boom())
    arguments = (endpoint(1), b"") if method == "extract" else ("add", endpoint(1))
    call = getattr(plugin, method)
    assert call(*arguments) == Extracted(waiting=1)
    assert call(*arguments) is None
    with pytest.raises(Exception, match="a dict; expected Extracted or None"):
        call(*arguments)
    for _ in range(4):
        with pytest.raises(RuntimeError, match="raised KeyError"):
            call(*arguments)
    assert len(shop.taken_out()) == 1
    if method == "extract":
        assert call(*arguments) is None
    else:  # one that misses an endpoint would never learn of it
        with pytest.raises(RuntimeError):
            call(*arguments)
    assert set(shop.errors().values()) == ({1, 4} if method == "extract" else {1, 5})


class Source:
    interval_s = 1.0

    def __init__(self, name: str, parameters: Any, handle: Any) -> None:
        self.says: Any = b"page"

    async def fetch(self, endpoint: Any) -> Any:
        if isinstance(self.says, BaseException):
            raise self.says
        return self.says


async def test_a_data_source(shop: Workshop) -> None:
    source = shop.make(Source)
    assert isinstance(source, DataSource)
    await source.close()
    assert await source.fetch(endpoint(1)) == b"page"
    for error in (OSError("down"), KeyError("x"), asyncio.CancelledError()):
        source.says = error
        with pytest.raises(type(error)):
            await source.fetch(endpoint(1))
    assert shop.errors() == {}, "an endpoint that is down is counted where it is polled"
    source.says = SystemExit(3)
    with pytest.raises(RuntimeError, match="raised SystemExit"):
        await source.fetch(endpoint(1))
    source.says = "page"
    for _ in range(10):
        with pytest.raises(TypeError, match="returned a str; expected bytes"):
            await source.fetch(endpoint(1))
    assert shop.errors() == {("DataSource", "invalid"): 10}
    assert shop.taken_out() == []


class NoInterval:
    async def fetch(self, endpoint: Any) -> bytes:
        return b""


class BadInterval(NoInterval):
    interval_s = 0


class PlainClose(NoInterval):
    interval_s = 1.0

    def close(self) -> None: ...


class PlainFetch:
    interval_s = 1.0

    def fetch(self, endpoint: Any) -> bytes:
        return b""


@pytest.mark.parametrize(
    ("cls", "message"),
    [
        (NoInterval, "lacks 'interval_s'"),
        (BadInterval, "lacks 'interval_s'"),
        (PlainClose, "'close' of a data source must be declared with 'async def'"),
        (PlainFetch, "'fetch' must be declared with 'async def'"),
    ],
)
def test_data_sources_that_are_refused(shop: Workshop, cls: type[Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        shop.make(cls)
