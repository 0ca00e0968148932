"""Conversations written down as what is heard and what is said in answer, in order.

    Transcript("name", [
        hears(RequestHeaders(ASKING)),
        says(),
        hears(RequestBody(b"{}", True)),
        says(refused(400, "BadRequest - model not found in request body")),
    ])

`says` names every reply since the last `says`; replies that no `says` names are a failure.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from picker.extproc.conversation import Conversation, State
from picker.extproc.events import (
    Event,
    HeaderChange,
    Headers,
    HeadersReply,
    ImmediateReply,
    Modes,
    Phase,
    Reply,
    StreamedBodyReply,
    TrailersReply,
)
from picker.keys import DESTINATION
from tests.picker.world import HERMETIC, Gate, P, World, at

PODS = (P(0, 3, 0.2), P(1, 0, 0.1), P(2, 10, 0.2))
"""The second one is the best."""
BEST = at(1)

PATH = (":path", b"/v1/completions")
MOM = ("hi", b"mom")
ID = ("x-request-id", b"test-request-id")
ASKING: Headers = [PATH, MOM, ID]
OK: Headers = [(":status", b"200"), ("content-type", b"application/json")]
SSE: Headers = [(":status", b"200"), ("content-type", b"text/event-stream")]
WENT = ("x-went-into-resp-headers", b"true")


@dataclass(frozen=True)
class Hears:
    """The proxy sends."""

    event: Event


@dataclass(frozen=True)
class Says:
    """The picker answers."""

    replies: Sequence[Reply]


@dataclass(frozen=True)
class Turn:
    """The request that waits has its turn."""


Step = Hears | Says | Turn


def hears(event: Event) -> Hears:
    """The proxy sends one message."""
    return Hears(event)


def says(*replies: Reply | Iterable[Reply]) -> Says:
    """All that is answered; an iterable stands for its items."""
    flat: list[Reply] = []
    for reply in replies:
        flat += reply if isinstance(reply, Iterable) else [reply]
    return Says(flat)


@dataclass(frozen=True)
class Transcript:
    """One conversation. `outcomes` is what the request counters say in the end (see `World.outcomes`), `reports` what is known of pods
    (see `World.told`)."""

    name: str
    steps: Sequence[Step]
    pods: Sequence[P] = PODS
    config: str = HERMETIC
    max_body_bytes: int = 1 << 20
    use_subset: bool = True
    observe_responses: bool = True
    finished: bool = False
    outcomes: dict[str, float] = field(default_factory=dict)
    unread: str = ""
    """What became of a response body nobody looked at."""
    reports: dict[str, tuple[int, float]] = field(default_factory=dict)
    waits: bool = False
    """Requests wait for their turn."""

    def world(self) -> World:
        """What it takes place in."""
        return World(
            *self.pods,
            config=self.config,
            max_body_bytes=self.max_body_bytes,
            use_subset=self.use_subset,
            observe_responses=self.observe_responses,
            gate=Gate() if self.waits else None,
        )


Pair = tuple[State, type[Event]]


def play(transcript: Transcript, world: World) -> tuple[Conversation, list[Pair]]:
    """Runs the steps; returns the conversation, and the (state, event) pairs it went through."""
    went_through: list[Pair] = []
    pending: list[Reply] = []
    conversation = world.conversation(lambda replies: pending.extend(replies))
    for number, step in enumerate(transcript.steps, 1):
        where = f"{transcript.name}, step {number}"
        if isinstance(step, Hears):
            went_through.append((conversation.state, type(step.event)))
            pending += conversation.receive(step.event)
        elif isinstance(step, Turn):
            take_turn(world)
        else:
            assert pending == list(step.replies), f"{where}\n said: {pending}\n should: {list(step.replies)}"
            pending.clear()
    assert not pending, f"{transcript.name}: said without being asked: {pending}"
    assert conversation.finished == transcript.finished, transcript.name
    return conversation, went_through


def take_turn(world: World) -> None:
    """Of the one request that waits."""
    assert world.gate is not None
    world.gate.queue.pop()(None)


# ---- words for what is said ----------------------------------------------------------------------------------------------------


def decided(destination: str, size_bytes: int, headers: Headers = ASKING, remove: Sequence[str] = ()) -> HeaderChange:
    """The change that sends a request to `destination`; `headers` are the client's that are copied."""
    first = [(DESTINATION, destination.encode())]
    if size_bytes:
        first.append(("Content-Length", str(size_bytes).encode()))
    return HeaderChange([*first, *headers], remove if remove == () else list(remove))


def routed(destination: str, size_bytes: int, headers: Headers = ASKING, remove: Sequence[str] = ()) -> HeadersReply:
    """The answer to the request headers that goes with `decided`."""
    return HeadersReply(Phase.REQUEST, decided(destination, size_bytes, headers, remove), True, {"envoy.lb": {DESTINATION: destination}})


def asked(body: bytes, end: bool = True) -> StreamedBodyReply:
    """A piece of the request body."""
    return StreamedBodyReply(Phase.REQUEST, body, end)


def answered(body: bytes, end: bool = True) -> StreamedBodyReply:
    """A piece of the response body."""
    return StreamedBodyReply(Phase.RESPONSE, body, end)


def passing(headers: Headers, remove: Sequence[str] = (), keep_body: Modes | None = None) -> HeadersReply:
    """The answer to response headers; `headers` are those that are copied."""
    return HeadersReply(Phase.RESPONSE, HeaderChange([WENT, *headers], remove if remove == () else list(remove)), keep_body=keep_body)


def refused(status: int, text: str, reason: str | None = None) -> ImmediateReply:
    """The contract's form of an error."""
    headers = [] if reason is None else [("x-llm-d-request-dropped-reason", reason.encode())]
    return ImmediateReply(status, f"inference error: {text}".encode(), headers, f"fairlead_{text.split(' - ')[0]}")


ASKED_TRAILERS = TrailersReply(Phase.REQUEST)
ANSWERED_TRAILERS = TrailersReply(Phase.RESPONSE)


def completion(model: str = "direct-model", prompt: str = "test") -> bytes:
    """A body as the contract's tests send it: keys sorted, no spaces."""
    return json.dumps({"max_tokens": 100, "model": model, "prompt": prompt, "temperature": 0}, separators=(",", ":")).encode()
