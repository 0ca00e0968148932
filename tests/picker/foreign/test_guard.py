"""Whatever a foreign plugin does, the stage gets something it can use."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable
from math import inf, nan
from typing import Any

import pytest

from picker.errors import BadRequest, Internal, Rejected
from picker.foreign.breaker import STRIKES
from picker.plugin import Admitter, Filter, Picker, Scorer
from picker.request import ParsedBody
from picker.snapshot import Candidates
from tests.picker.foreign.setting import Workshop, boom, plugin
from tests.picker.scheduling.pool import idle, only, request

POOL = idle(3)
ALL = POOL.candidates()
TWO = only(POOL, 0, 2)


@pytest.fixture
def shop() -> Workshop:
    return Workshop()


# ---- scores


@pytest.mark.parametrize(
    ("returned", "scores"),
    [
        ([0.0, 0.5, 1.0], [0.0, 0.5, 1.0]),
        ((1, 0, True), [1, 0, True]),
        ([-3.0, 0.5, 7], [0.0, 0.5, 1.0]),
        ([1e308, 1e308, 1e308], [1.0, 1.0, 1.0]),
        ({}, [0.0, 0.0, 0.0]),
        ({ALL.endpoints[1]: 0.25}, [0.0, 0.25, 0.0]),
    ],
)
def test_scores_that_can_be_used(shop: Workshop, returned: Any, scores: list[float]) -> None:
    assert shop.make(plugin("score", lambda r, c: returned)).score(request(), ALL) == scores
    assert shop.errors() == {}


@pytest.mark.parametrize(
    ("returned", "scores"),
    [
        ([nan, 0.5, inf], [0.0, 0.5, 0.0]),
        ([-inf, inf, 1.0], [0.0, 0.0, 1.0]),
        ([1.0], [0.0, 0.0, 0.0]),
        ([1.0] * 4, [0.0, 0.0, 0.0]),
        (None, [0.0, 0.0, 0.0]),
        (0.5, [0.0, 0.0, 0.0]),
        ("abc", [0.0, 0.0, 0.0]),
        (["a", "b", "c"], [0.0, 0.0, 0.0]),
        ([None, 1.0, 1.0], [0.0, 0.0, 0.0]),
        ([1j, 1.0, 1.0], [0.0, 0.0, 0.0]),
        ([10**400, 1.0, 1.0], [0.0, 0.0, 0.0]),
        ({"e1": 1.0}, [0.0, 0.0, 0.0]),
        ({ALL.endpoints[0]: nan}, [0.0, 0.0, 0.0]),
        ((s for s in [1.0, 1.0, 1.0]), [0.0, 0.0, 0.0]),
    ],
)
def test_scores_that_are_nonsense_count_as_zero(shop: Workshop, returned: Any, scores: list[float]) -> None:
    assert shop.make(plugin("score", lambda r, c: returned)).score(request(), ALL) == scores
    assert shop.errors() == {("Scorer", "invalid"): 1}


def test_a_list_that_the_plugin_changes_later_does_not_change_the_record(shop: Workshop) -> None:
    mine = [0.1, 0.2, 0.3]
    kept = shop.make(plugin("score", lambda r, c: mine)).score(request(), ALL)
    mine[0] = 1.0
    assert kept == [0.1, 0.2, 0.3]


@pytest.mark.parametrize("does", [boom, lambda *_: sys.exit(3), lambda *_: 1 / 0])
def test_a_scorer_that_raises_counts_as_zero(shop: Workshop, does: Callable[..., Any]) -> None:
    assert shop.make(plugin("score", does)).score(request(), TWO) == [0.0, 0.0]
    assert shop.errors() == {("Scorer", "raised"): 1}


# ---- filters, pickers


def test_a_filter_takes_out(shop: Workshop) -> None:
    made = shop.make(plugin("filter", lambda r, c: c.keep(lambda e: e.name != "e2")))
    assert [e.name for e in made.filter(request(), ALL).endpoints] == ["e1", "e3"]
    assert len(shop.make(plugin("filter", lambda r, c: c.at([]))).filter(request(), ALL)) == 0
    assert shop.errors() == {}


@pytest.mark.parametrize("method", ["filter", "screen"])
@pytest.mark.parametrize(
    "does",
    [
        boom,
        lambda r, c: None,
        lambda r, c: list(c.endpoints),
        lambda r, c: ALL,  # more than it was given
        lambda r, c: idle(3).candidates(),
        lambda r, c: Candidates(c.snapshot, [2, 0], (c.endpoints[1], c.endpoints[0])),
        lambda r, c: Candidates(c.snapshot, [0, 2], (c.endpoints[0],)),
    ],
)
def test_a_filter_that_fails_passes_all_it_was_given(shop: Workshop, method: str, does: Callable[..., Any]) -> None:
    made = shop.make(plugin(method, does))
    assert getattr(made, method)(request(), TWO) is TWO
    assert sum(shop.errors().values()) == 1


@pytest.mark.parametrize("returned", [(), None, [3], [-1], [0, 0], ["a"], "0", [1.0], ALL.endpoints[:1]])
def test_a_picker_that_fails_is_replaced_by_the_highest_score(shop: Workshop, returned: Any) -> None:
    assert list(shop.make(plugin("pick", lambda r, c, t: returned)).pick(request(), ALL, [0.1, 0.9, 0.3])) == [1]
    assert shop.errors() == {("Picker", "invalid"): 1}


def test_a_picker_picks(shop: Workshop) -> None:
    assert list(shop.make(plugin("pick", lambda r, c, t: [2, 0])).pick(request(), ALL, [0.1, 0.9, 0.3])) == [2, 0]
    assert shop.errors() == {}


# ---- protections


def test_a_refusal_is_an_answer(shop: Workshop) -> None:
    def refuse(*_: Any) -> None:
        raise Rejected("full", retry_after_s=3)

    made = shop.make(plugin("admit", refuse))
    for _ in range(20):
        with pytest.raises(Rejected, match="full"):
            made.admit(request(), ALL, 0.0)
    assert shop.errors() == {}
    assert shop.taken_out() == []


def test_a_scorer_has_nothing_to_refuse(shop: Workshop) -> None:
    def refuse(*_: Any) -> None:
        raise Rejected("full")

    assert shop.make(plugin("score", refuse)).score(request(), TWO) == [0.0, 0.0]
    assert shop.errors() == {("Scorer", "raised"): 1}


def test_an_admitter_that_is_broken_refuses_also_when_taken_out(shop: Workshop) -> None:
    made = shop.make(plugin("admit", boom), name="quota")
    for _ in range(20):
        with pytest.raises(Internal, match="'quota' failed: the request could not be checked"):
            made.admit(request(), ALL, 0.0)
    assert shop.errors() == {("Admitter", "raised"): STRIKES}
    assert shop.taken_out() == ["Admitter"]


def test_an_admitter_admits_on_error_only_when_told_to(shop: Workshop) -> None:
    made = shop.make(plugin("admit", boom), {"guard": {"onError": "admit"}})
    for _ in range(20):
        made.admit(request(), ALL, 0.0)
    assert shop.errors() == {("Admitter", "raised"): STRIKES}


def test_on_error_is_refused_where_it_would_mean_nothing(shop: Workshop) -> None:
    with pytest.raises(ValueError, match=r"guard\.onError"):
        shop.make(plugin("score", boom), {"guard": {"onError": "admit"}})


def test_a_slow_admitter_is_counted_and_stays(shop: Workshop) -> None:
    def slow(*_: Any) -> None:
        shop.now_s += 0.006

    made = shop.make(plugin("admit", slow))
    for _ in range(20):
        made.admit(request(), ALL, 0.0)
    assert shop.errors() == {("Admitter", "slow"): 20}
    assert shop.taken_out() == []


def test_a_parser_refuses_what_it_cannot_read(shop: Workshop) -> None:
    def parse(path: str, headers: object, body: bytes) -> Any:
        if body == b"bad":
            raise BadRequest("not mine")
        return ParsedBody(model="m") if body else None

    made = shop.make(plugin("parse", parse, paths=("/v1/rank",)), name="rank")
    assert made.parse("/v1/rank", {}, b"good").model == "m"
    with pytest.raises(BadRequest, match="not mine"):
        made.parse("/v1/rank", {}, b"bad")
    with pytest.raises(Internal, match="'rank' failed to read"):
        made.parse("/v1/rank", {}, b"")
    assert shop.errors() == {("Parser", "invalid"): 1}


def test_a_producer_that_raises_leaves_no_data(shop: Workshop) -> None:
    made = shop.make(plugin("produce", boom, produces=("mine",)))
    made.produce(request(), ALL)
    assert (made.produces, made.consumes) == ({"mine"}, frozenset())
    assert shop.errors() == {("DataProducer", "raised"): 1}


async def test_a_producer_that_waits(shop: Workshop) -> None:
    class Tokens:
        produces = ("tokens",)
        timeout_s = 0.1

        async def prepare(self, request: Any) -> None:
            if request.model == "gone":
                raise asyncio.CancelledError
            if request.model != "m":
                raise OSError("no tokenizer")
            request.working["tokens"] = 7

    made, asked = shop.make(Tokens), request()
    await made.prepare(asked)
    assert asked.working == {"tokens": 7}
    await made.prepare(request(model="other"))
    with pytest.raises(asyncio.CancelledError):
        await made.prepare(request(model="gone"))
    assert shop.errors() == {("AsyncDataProducer", "raised"): 1}


def test_the_rest_of_the_extension_points(shop: Workshop) -> None:
    class All:
        def __init__(self, name: str, parameters: Any, handle: Any) -> None:
            self.gone: list[Any] = []
            self.broken = False

        def saturation(self, snapshot: Any, now_s: float) -> Any:
            return "full" if self.broken else 0.5

        def profiles(self, request: Any, names: Any) -> Any:
            return ["c"] if self.broken else ["b"]

        def primary(self, results: Any) -> Any:
            return "c" if self.broken else "b"

        def pre_request(self, request: Any, snapshot: Any, position: int) -> None:
            boom()

        def response_header(self, request: Any, response: Any) -> Any:
            return {"X-Upper": "1"} if self.broken else {"x-mine": "1"}

        def response_started(self, request: Any, response: Any) -> None:
            boom()

        def response_complete(self, request: Any, response: Any) -> Any:
            return {"ns": 1} if self.broken else {"ns": {"k": 1}}

        def endpoint_removed(self, endpoint: Any, bit: int) -> None:
            self.gone.append(bit)
            boom()

    made = shop.make(All)
    results = {"a": None, "b": None}
    ask = [
        (lambda: made.saturation(POOL, 0.0), 0.5, 1.0),
        (lambda: made.profiles(request(), ("a", "b")), ["b"], ("a",)),
        (lambda: made.primary(results), "b", "a"),
        (lambda: made.response_header(request(), None), {"x-mine": "1"}, None),
        (lambda: made.response_complete(request(), None), {"ns": {"k": 1}}, None),
    ]
    assert [call() for call, _, _ in ask] == [good for _, good, _ in ask]
    made.broken = True
    assert [call() for call, _, _ in ask] == [instead for _, _, instead in ask]
    made.pre_request(request(), POOL, 0)
    made.response_started(request(), None)
    for bit in range(20):
        made.endpoint_removed(ALL.endpoints[0], bit)
    assert made.gone == list(range(20)), "a watcher that misses one keeps it for good"
    assert {kind for _, kind in shop.errors()} == {"invalid", "raised"}


@pytest.mark.parametrize("value", ["a\r\nx: y", "\0"])
def test_a_header_cannot_smuggle_another(shop: Workshop, value: str) -> None:
    class Headers:
        def response_header(self, request: Any, response: Any) -> Any:
            return {"x-mine": value}

    assert shop.make(Headers).response_header(request(), None) is None


@pytest.mark.parametrize(
    ("name", "value"),
    [("X-Upper", "1"), ("", "1"), ("a b", "1"), ("x", 1), ("x", None), ("x", "a\nb"), ("x", "\ud800"), (7, "1"), ("x\r\ny", "1")],
)
def test_a_header_for_the_model_server_is_checked_where_it_is_set(shop: Workshop, name: Any, value: Any) -> None:
    made, asked = shop.make(plugin("request_header", lambda r: r.set_header(name, value))), request()
    made.request_header(asked)
    assert asked.more_headers is None
    assert shop.errors() == {("RequestHeaderProcessor", "raised"): 1}


def endless() -> list[Any]:
    inside: list[Any] = []
    inside.append(inside)
    return inside


@pytest.mark.parametrize("value", [object(), {1: "x"}, {"a": {"b": b"bytes"}}, "\ud800", endless()])
def test_metadata_is_what_a_struct_can_hold(shop: Workshop, value: Any) -> None:
    made, asked = shop.make(plugin("request_header", lambda r: r.set_metadata("ns", "key", value))), request()
    made.request_header(asked)
    assert asked.metadata is None
    assert shop.errors() == {("RequestHeaderProcessor", "raised"): 1}


def test_headers_and_metadata_that_are_fit(shop: Workshop) -> None:
    def both(asked: Any) -> None:
        asked.set_header("x-mine", "ä; b")
        asked.set_metadata("ns", "key", {"a": [1, 2.5, "x", None, True]})

    made, asked = shop.make(plugin("request_header", both)), request()
    made.request_header(asked)
    assert (asked.more_headers, asked.metadata) == ({"x-mine": "ä; b"}, {"ns": {"key": {"a": [1, 2.5, "x", None, True]}}})
    assert shop.errors() == {}


def test_a_guarded_plugin_is_what_its_class_is(shop: Workshop) -> None:
    class Both:
        """Two in one."""

        __slots__ = ()

        def score(self, request: Any, candidates: Any) -> Any:
            return boom()

        def filter(self, request: Any, candidates: Any) -> Any:
            return candidates

    made = shop.make(Both, type_="both", name="b")
    assert isinstance(made, Scorer) and isinstance(made, Filter) and isinstance(made, Both)
    assert not isinstance(made, Picker) and not isinstance(made, Admitter)
    assert (made.type, made.name, type(made).__doc__) == ("both", "b", "Two in one.")
    for _ in range(9):
        made.score(request(), TWO)
    assert shop.guards[0].taken_out == ["Scorer"], "its filter goes on"
