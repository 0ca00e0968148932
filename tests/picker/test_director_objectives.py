"""Priorities and model rewrites on a request's way through the director, and in the bodies on both ways (contract 1.7, 2.3)."""

from __future__ import annotations

import gzip
import random
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from picker.datalayer.objectives.store import ObjectiveStore, Rewrite, Rule, Table, Target
from picker.director import Director, Pool
from picker.errors import BadRequest, Rejected
from picker.exchange import Cause
from picker.extproc.events import BodyMode, BodyReply, Modes
from picker.request import InferenceRequest
from tests.picker.extproc.test_bodies import joined, respond, send
from tests.picker.extproc.transcript import OK, SSE
from tests.picker.test_director import PATH, handle
from tests.picker.world import DEFAULT_PARSERS, PASSTHROUGH, P, World

HEADER = "x-llm-d-model-name-rewrite"
OBJECTIVE = "x-llm-d-inference-objective"
DECISIONS = "llm_d_epp_model_rewrite_decisions_total"
EXACT = Rewrite("exact", [Rule(["m"], [Target("t")])])
GENERIC = Rewrite("generic", [Rule([], [Target("g")])])
NO_MODEL = b'{"prompt":"hi"}'


def asked(world: World, headers: dict[str, str] | None = None, body: bytes = b'{"model":"m","prompt":"hi"}') -> InferenceRequest:
    request = handle(world, {**PATH, **(headers or {})}, body).request
    assert request is not None
    return request


@pytest.mark.parametrize(
    ("headers", "priority"),
    [
        ({}, 0),
        ({OBJECTIVE: "unknown"}, 0),
        ({OBJECTIVE: "chat"}, 7),
        ({"x-gateway-inference-objective": "chat"}, 7),
        ({OBJECTIVE: "batch", "x-gateway-inference-objective": "chat"}, -1),
    ],
)
def test_the_objectives_priority_is_the_requests(headers: dict[str, str], priority: int) -> None:
    world = World(P(0), objectives=Table({"chat": 7, "batch": -1}))
    world.now = 0.0  # the metrics are fresh, and the pool is idle
    assert asked(world, headers).priority == priority
    assert world.page().value("llm_d_epp_request_total", priority=str(priority)) == 1


def test_a_sheddable_objective_is_shed_when_the_pool_is_full() -> None:
    world = World(P(0, 50), objectives=Table({"batch": -1}))
    world.now = 0.0
    asked(world, {OBJECTIVE: "other"})
    with pytest.raises(Rejected):
        asked(world, {OBJECTIVE: "batch"})
    assert world.page().value("llm_d_epp_request_error_total", priority="-1") == 1


@pytest.mark.parametrize(
    ("rewrites", "headers", "target", "decided"),
    [
        ([], {}, "m", ""),
        ([], {HEADER: "h"}, "h", ""),
        ([EXACT], {}, "t", "exact"),
        ([EXACT], {HEADER: "h"}, "t", "exact"),
        ([GENERIC], {HEADER: "h"}, "g", "generic"),
        ([GENERIC, EXACT], {}, "t", "exact"),
        # The rules look at the client's model, not at the header's.
        ([Rewrite("r", [Rule(["h"], [Target("x")])])], {HEADER: "h"}, "h", ""),
    ],
)
def test_a_rewrite_overrides_the_header(rewrites: list[Rewrite], headers: dict[str, str], target: str, decided: str) -> None:
    world = World(P(0), objectives=Table(rewrites=rewrites))
    request = asked(world, headers)
    assert (request.model, request.target_model) == ("m", target)
    page = world.page()
    assert page.value("llm_d_epp_request_total", model_name="m", target_model_name=target) == 1
    labels = {"model_rewrite_name": decided, "model_name": "m", "target_model": target}
    assert [(s.labels, s.value) for s in page.find(DECISIONS)] == ([(labels, 1)] if decided else [])


def test_a_request_without_a_model_needs_a_generic_rule() -> None:
    for table in (Table(), Table(rewrites=[EXACT])):
        with pytest.raises(BadRequest, match="model not found in request body"):
            asked(World(P(0), objectives=table), {HEADER: "h"}, NO_MODEL)
    world = World(P(0), objectives=Table(rewrites=[EXACT, GENERIC]))
    request = asked(world, body=NO_MODEL)
    assert (request.model, request.target_model) == ("", "g")
    assert world.page().value(DECISIONS, model_name="", target_model="g") == 1


def test_bodies_without_a_place_for_a_model_are_left_alone() -> None:
    world = World(P(0), config=PASSTHROUGH, objectives=Table(rewrites=[GENERIC]))
    assert asked(world, body=b"opaque").target_model == ""
    world = World(P(0), config=DEFAULT_PARSERS, objectives=Table(rewrites=[GENERIC]))
    form = {":path": "/v1/audio/transcriptions", "content-type": "multipart/form-data; boundary=b"}
    body = b'--b\r\ncontent-disposition: form-data; name="model"\r\n\r\nwhisper\r\n--b--\r\n'
    request = asked(world, form, body)
    assert (request.model, request.target_model) == ("whisper", "whisper")
    for path, body in {
        "/v1/conversations": b'{"items":[{"type":"message","role":"user","content":"hi"}]}',
        "/v1/audio/speech": b'{"input":"hi"}',
        "/v1/messages/count_tokens": b'{"messages":[]}',
    }.items():
        request = asked(world, {":path": path}, body)
        assert (request.model, request.target_model) == ("", ""), path
    assert not world.page().find(DECISIONS)


@pytest.mark.parametrize(("path", "body"), [("/tokenize", b'{"prompt":"hi"}'), ("/detokenize", b'{"tokens":[1]}')])
def test_where_a_model_may_be_left_out_a_generic_rule_gives_one(path: str, body: bytes) -> None:
    world = World(P(0), config=DEFAULT_PARSERS, objectives=Table(rewrites=[GENERIC]))
    assert asked(world, {":path": path}, body).target_model == "g"
    assert asked(World(P(0), config=DEFAULT_PARSERS), {":path": path}, body).target_model == ""


def test_a_canary_gets_its_share() -> None:
    """10,000 requests, one in ten to the canary: 1,000 with a standard deviation of 30; the seed makes the count the same each time."""
    world = World(P(0))
    store = ObjectiveStore(draw=random.Random(20).random, on_rewrite=world.metrics.count_rewrite)
    store.replace(Table(rewrites=[Rewrite("canary", [Rule(["m"], [Target("stable", 90), Target("new", 10)])])]))
    pool = Pool(world.datastore.snapshot, world.datastore.match_subset)
    director = Director(world.pipeline.stages, pool, world.ledger, world.decisions, store)
    for number in range(10_000):
        body = b'{"model":"m","prompt":"hi"}'
        exchange = director.handle(PATH, body, None, request_id=str(number), received_s=world.now)
        assert not hasattr(exchange, "cancel")
        exchange.close(Cause.COMPLETED)  # type: ignore[union-attr]
    page = world.page()
    counts = {t: page.value(DECISIONS, model_rewrite_name="canary", model_name="m", target_model=t) for t in ("stable", "new")}
    assert sum(counts.values()) == 10_000
    assert 880 < counts["new"] < 1120
    assert page.value("llm_d_epp_request_total", target_model_name="new") == counts["new"]
    world.assert_idle()


# ---- bodies ----------------------------------------------------------------------------------------------------------------------


EVENTS = b'data: {"model":"t","x":"model"}\n\ndata: {"model": "t"}\n\ndata: [DONE]\n\n'
RESTORED = b'data: {"model":"m","x":"model"}\n\ndata: {"model": "m"}\n\ndata: [DONE]\n\n'


@given(st.lists(st.integers(0, len(EVENTS)), max_size=12))
def test_the_clients_model_is_restored_wherever_a_stream_is_cut(cuts: list[int]) -> None:
    world = World(P(0), objectives=Table(rewrites=[EXACT]))
    conversation = world.conversation()
    assert joined(send(conversation, b'{"model":"m","prompt":"hi"}')) == b'{"model":"t","prompt":"hi"}'
    edges = [0, *sorted(cuts), len(EVENTS)]
    chunks = [EVENTS[a:b] for a, b in pairwise(edges)]
    assert joined(respond(conversation, SSE, *chunks)) == RESTORED
    world.assert_idle()


@pytest.mark.parametrize("at", range(len(b'{"id":"1","model":"t"}') + 1))
def test_the_clients_model_is_restored_in_json(at: int) -> None:
    conversation = World(P(0), objectives=Table(rewrites=[EXACT])).conversation()
    send(conversation, b'{"model":"m","prompt":"hi"}')
    body = b'{"id":"1","model":"t"}'
    assert joined(respond(conversation, OK, body[:at], body[at:])) == b'{"id":"1","model":"m"}'


def test_a_compressed_answer_passes_untouched() -> None:
    conversation = World(P(0), objectives=Table(rewrites=[EXACT])).conversation()
    send(conversation, b'{"model":"m","prompt":"hi"}')
    body = gzip.compress(b'{"model":"t"}') + b'"model":"t"'
    assert joined(respond(conversation, [*OK, ("content-encoding", b"gzip")], body[:9], body[9:])) == body


@pytest.mark.parametrize(("headers", "answer"), [(OK, b'{"model":"g"}'), (SSE, b'data: {"model":"g"}\n\n')])
def test_a_client_that_named_no_model_is_told_which_one_answered(headers: list[tuple[str, bytes]], answer: bytes) -> None:
    conversation = World(P(0), objectives=Table(rewrites=[GENERIC])).conversation()
    assert joined(send(conversation, NO_MODEL)) == b'{"model":"g","prompt":"hi"}'
    assert joined(respond(conversation, headers, answer)) == answer


def test_a_model_is_inserted_where_bodies_are_buffered() -> None:
    conversation = World(P(0), objectives=Table(rewrites=[GENERIC])).conversation()
    (reply,) = send(conversation, NO_MODEL, modes=Modes(BodyMode.BUFFERED, BodyMode.STREAMED))
    assert isinstance(reply, BodyReply) and reply.body == b'{"model":"g","prompt":"hi"}'
