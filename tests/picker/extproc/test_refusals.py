"""Every refusal of the contract's section 1.8 that exists here: status, exact text, drop reason, and one error in the counters."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from picker.errors import (
    REJECTED_SATURATED,
    BadRequest,
    Forbidden,
    Internal,
    NotFound,
    PayloadTooLarge,
    PreconditionFailed,
    Refusal,
    Rejected,
    Unauthorized,
    Unavailable,
)
from picker.extproc.events import (
    BodyMode,
    HeadersReply,
    ImmediateReply,
    Modes,
    Phase,
    RequestBody,
    RequestHeaders,
    RequestTrailers,
    ResponseBody,
    ResponseHeaders,
    ResponseTrailers,
)
from picker.keys import CONTROL
from picker.request import InferenceRequest
from picker.snapshot import Snapshot
from picker.timing import ADMISSION, PRE_REQUEST, timed
from tests.picker.extproc.transcript import ASKING, ID, PODS, Step, Transcript, completion, hears, play, refused, says
from tests.picker.world import PASSTHROUGH, P, World, at, config

BODY = completion()
NOT_UTF8 = "'utf-8' codec can't decode byte 0xff in position 0: invalid start byte"
NO_CANDIDATES = refused(503, "ServiceUnavailable - failed to find endpoint candidates for serving the request", "rejected-no-endpoints")
UNREADABLE = "BadRequest - error unmarshaling request bodyMap: invalid character 'o' in literal null (expecting 'u')"
NO_PODS = "Internal - no pods available in datastore"


def mode_refused(mode: BodyMode, why: str) -> Transcript:
    text = f"Internal - ext_proc request_body_mode {mode.name} cannot be served: {why}; set FULL_DUPLEX_STREAMED (or BUFFERED)"
    steps: list[Step] = [hears(RequestHeaders(ASKING, modes=Modes(mode))), says(refused(500, text))]
    return Transcript(f"mode {mode.name}", steps, finished=True, outcomes={"Internal": 1})


def body_refused(name: str, body: bytes, answer: ImmediateReply, code: str, *, path: bytes = b"/v1/completions") -> Transcript:
    headers = [(":path", path), ID]
    return Transcript(
        name,
        [hears(RequestHeaders(headers)), says(), hears(RequestBody(body, True)), says(answer)],
        finished=True,
        outcomes={code: 1},
    )


REFUSALS = [
    body_refused("invalid JSON", b"no healthy upstream", refused(400, UNREADABLE), "BadRequest"),
    body_refused("no model", b'{"prompt":"hello world"}', refused(400, "BadRequest - model not found in request body"), "BadRequest"),
    body_refused(
        "no prompt", b'{"model":"m"}', refused(400, "BadRequest - invalid completions request: must have prompt field"), "BadRequest"
    ),
    body_refused("no parser", b"{}", refused(400, "BadRequest - no parser is configured for path '/other'"), "BadRequest", path=b"/other"),
    *[
        Transcript(
            f"no candidates: {name}",
            [hears(RequestHeaders(ASKING, subset=subset)), hears(RequestBody(BODY, True)), says(NO_CANDIDATES)],
            pods=pods,
            finished=True,
            outcomes={"ServiceUnavailable": 1},
        )
        for name, subset, pods in (("no pods", None, ()), ("unknown hint", [at(98)], PODS), ("empty hint", [], PODS))
    ],
    Transcript(
        "no model is found out before no candidates are",
        [
            hears(RequestHeaders(ASKING)),
            hears(RequestBody(b'{"prompt":"x"}', True)),
            says(refused(400, "BadRequest - model not found in request body")),
        ],
        pods=(),
        finished=True,
        outcomes={"BadRequest": 1},
    ),
    Transcript("headers only, no pods", [hears(RequestHeaders(ASKING, True)), says(refused(500, NO_PODS))], pods=(), finished=True),
    Transcript(
        "headers only, no pods, though there is a hint",
        [hears(RequestHeaders(ASKING, True, subset=[at(0)])), says(refused(500, NO_PODS))],
        pods=(),
        finished=True,
    ),
    Transcript("headers only, unknown hint", [hears(RequestHeaders(ASKING, True, subset=[at(9)])), says(NO_CANDIDATES)], finished=True),
    Transcript(
        "filters leave nothing",
        [
            hears(RequestHeaders(ASKING)),
            hears(RequestBody(BODY, True)),
            says(refused(429, "ResourceExhausted - no endpoints available for the given request", "rejected-saturated")),
        ],
        config=config("openai-parser", scorers=("prefill-filter", "queue-scorer")),
        finished=True,
        outcomes={"ResourceExhausted": 1},
    ),
    Transcript(
        "too large by content-length",
        [
            hears(RequestHeaders([*ASKING, ("content-length", b"1001")])),
            says(refused(413, "PayloadTooLarge - the request body is larger than the limit of 1000 bytes")),
        ],
        max_body_bytes=1000,
        finished=True,
        outcomes={"PayloadTooLarge": 1},
    ),
    Transcript(
        "too large by what has come so far",
        [
            hears(RequestHeaders([*ASKING, ("content-length", b"nonsense")])),
            hears(RequestBody(b"x" * 600)),
            says(),
            hears(RequestBody(b"x" * 401)),
            says(refused(413, "PayloadTooLarge - the request body is larger than the limit of 1000 bytes")),
            hears(RequestBody(b"x" * 600, True)),
            says(),
        ],
        max_body_bytes=1000,
        finished=True,
        outcomes={"PayloadTooLarge": 1},
    ),
    Transcript(
        "more than the proxy can buffer",
        [
            hears(RequestHeaders(ASKING, modes=Modes(BodyMode.BUFFERED_PARTIAL))),
            says(HeadersReply(Phase.REQUEST)),
            hears(RequestBody(BODY)),
            says(refused(413, "PayloadTooLarge - the request body does not fit the proxy's buffer (request_body_mode BUFFERED_PARTIAL)")),
        ],
        finished=True,
        outcomes={"PayloadTooLarge": 1},
    ),
    mode_refused(BodyMode.NONE, "the request body is not sent"),
    mode_refused(BodyMode.STREAMED, "the request headers leave before the body is known"),
    mode_refused(BodyMode.GRPC, "gRPC message framing is not understood"),
    Transcript(
        "a body whose model cannot be rewritten",
        [
            hears(RequestHeaders([*ASKING, ("x-llm-d-model-name-rewrite", b"other")])),
            hears(RequestBody(b'{"model":"m","prompt":"x","\xff":1}', True)),
            says(
                refused(
                    400,
                    f"BadRequest - cannot rewrite the model of this body: {NOT_UTF8}",
                )
            ),
        ],
        finished=True,
        outcomes={"BadRequest": 1},
    ),
]


@pytest.mark.parametrize("transcript", REFUSALS, ids=lambda t: t.name)
def test_refusal(transcript: Transcript) -> None:
    world = transcript.world()
    conversation, _ = play(transcript, world)
    # What the proxy still sends before it notices is passed over.
    for late in (RequestBody(b"late", True), ResponseHeaders([]), ResponseBody(b"", True)):
        assert list(conversation.receive(late)) == []
    conversation.end()
    world.assert_idle()
    assert world.outcomes() == transcript.outcomes


class Denies:
    """An admitter that turns everything away."""

    type = name = "denies"

    def __init__(self, error: Exception) -> None:
        self.error = error

    def admit(self, request: InferenceRequest, snapshot: Snapshot, now_s: float) -> None:
        raise self.error


class Breaks:
    """A plugin with a fault, in whatever stage it is put."""

    type = name = "breaks"

    def _fail(self, *args: object) -> Any:
        raise ZeroDivisionError("a fault in a plugin")

    score = pre_request = _fail


def _converse(world: World) -> list[object]:
    conversation = world.conversation()
    replies = [*conversation.receive(RequestHeaders(ASKING)), *conversation.receive(RequestBody(BODY, True))]
    assert conversation.finished
    conversation.end()
    world.assert_idle()
    return list(replies)


def test_an_admitters_refusal_comes_with_its_reason_and_a_hint_when_to_retry() -> None:
    world = World(*PODS)
    denies = Denies(Rejected("system saturated, sheddable request dropped", drop_reason=REJECTED_SATURATED, retry_after_s=0.4))
    world.director.stages.admitters = timed(world.metrics, ADMISSION, [denies])
    (reply,) = _converse(world)
    assert isinstance(reply, ImmediateReply)
    plain = refused(429, "ResourceExhausted - system saturated, sheddable request dropped", "rejected-saturated")
    assert (reply.status, reply.body) == (plain.status, plain.body)
    assert reply.set_headers == [*plain.set_headers, ("retry-after", b"1")]
    assert world.outcomes() == {"ResourceExhausted": 1}


class Odd(Refusal):
    """With a code nobody knows."""

    code = "Teapot"


@pytest.mark.parametrize(
    ("kind", "status", "grpc_status"),
    [
        (BadRequest, 400, 3), (Unauthorized, 401, 16), (Forbidden, 403, 7), (NotFound, 404, 5), (PreconditionFailed, 412, 9),
        (PayloadTooLarge, 413, 8), (Rejected, 429, 8), (Internal, 500, 13), (Unavailable, 503, 14), (Odd, 500, 13),
    ],
)  # fmt: skip
@pytest.mark.parametrize("grpc", [False, True])
def test_a_plugin_may_refuse_with_any_code(kind: type[Refusal], status: int, grpc_status: int, grpc: bool) -> None:
    world = World(*PODS)
    world.director.stages.admitters = timed(world.metrics, ADMISSION, [Denies(kind("not today"))])
    conversation = world.conversation()
    kind_of_call = [("content-type", b"application/grpc")] if grpc else []
    (reply,) = [*conversation.receive(RequestHeaders([*ASKING, *kind_of_call])), *conversation.receive(RequestBody(BODY, True))]
    assert isinstance(reply, ImmediateReply)
    assert (reply.status, reply.body, reply.grpc_status) == (
        status,
        f"inference error: {kind.code} - not today".encode(),
        grpc_status if grpc else None,
    )
    assert reply.set_headers == []
    conversation.end()
    assert world.outcomes() == {kind.code: 1}


def _break_scorer(world: World) -> None:
    profile = next(iter(world.director.stages.scheduler.profiles.values()))
    profile._scorers[1] = (Breaks().score, profile._scorers[1][1])


def _break_admitter(world: World) -> None:
    world.director.stages.admitters = timed(world.metrics, ADMISSION, [Denies(KeyError("x"))])


def _break_hook(world: World) -> None:
    world.director.stages.pre_request = timed(world.metrics, PRE_REQUEST, [Breaks()])


@pytest.mark.parametrize("damage", [_break_scorer, _break_admitter, _break_hook])
def test_a_fault_in_a_plugin_is_an_internal_error_and_is_settled(damage: Callable[[World], None]) -> None:
    world = World(*PODS)
    damage(world)
    assert _converse(world) == [refused(500, "Internal - the picker failed to handle this request; its log has the details")]
    assert world.outcomes() == {"Internal": 1}


def test_a_scheduling_attempt_that_fails_is_counted() -> None:
    world = World(*PODS)
    _break_scorer(world)
    assert _converse(world) == [refused(500, "Internal - the picker failed to handle this request; its log has the details")]
    assert world.page().value("llm_d_epp_scheduler_attempts_total", status="failure") == 1


def test_a_refusal_of_no_capacity_is_counted_under_the_model_it_was_for() -> None:
    world = World()
    _converse(world)
    (sample,) = world.page().find("llm_d_epp_request_error_total")
    assert sample.labels["model_name"] == sample.labels["target_model_name"] == "direct-model"


# ---- hints ---------------------------------------------------------------------------------------------------------------------

TWO_PORTS = (P(0), P(0, port=8001), P(1), P(2))


@pytest.mark.parametrize(
    ("hint", "allowed"),
    [
        ([at(2)], {at(2)}),
        ([at(0, 8001)], {at(0, 8001)}),
        (["192.168.1.1"], {at(0), at(0, 8001)}),
        ([at(1), at(2)], {at(1), at(2)}),
        ([f" {at(1)} ", "nonsense", at(77)], {at(1)}),
        (None, {at(0), at(0, 8001), at(1), at(2)}),
    ],
)
@pytest.mark.parametrize("with_body", [True, False])
def test_a_hint_limits_the_choice(hint: list[str] | None, allowed: set[str], with_body: bool) -> None:
    world = World(*TWO_PORTS, config=PASSTHROUGH)
    chosen: set[str] = set()
    for _ in range(100):
        conversation = world.conversation()
        replies = conversation.receive(RequestHeaders(ASKING, not with_body, subset=hint))
        replies = conversation.receive(RequestBody(b"x", True)) if with_body else replies
        assert isinstance(replies[0], HeadersReply)
        chosen.add(dict(replies[0].change.set_headers)["x-gateway-destination-endpoint"].decode())
        conversation.end()
    assert chosen == allowed


def test_hints_can_be_switched_off() -> None:
    world = World(*PODS, use_subset=False)
    conversation = world.conversation()
    conversation.receive(RequestHeaders(ASKING, subset=[at(2)]))
    conversation.receive(RequestBody(BODY, True, subset=[]))
    conversation.end()
    assert world.outcomes() == {"Disconnected": 1}


def test_a_refused_observed_stream_says_nothing() -> None:
    conversation = World().conversation()
    assert not conversation.receive(RequestHeaders(ASKING, True, modes=Modes(observability=True)))
    assert not conversation.receive(RequestTrailers())
    assert not conversation.receive(ResponseTrailers())
    assert not conversation.finished
    assert "x-request-id" not in CONTROL
