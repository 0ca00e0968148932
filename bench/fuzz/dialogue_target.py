"""Protobuf bytes into events, events in every legal order into a conversation, replies back into protobuf."""

from __future__ import annotations

from bench.fuzz.dialogues import KINDS, first_event, message, next_event
from bench.fuzz.dice import Dice, scramble
from bench.fuzz.finding import demand
from bench.fuzz.world import World
from picker.extproc.codec import decode, encode
from picker.extproc.conversation import TRANSITIONS, Conversation
from picker.extproc.events import ProtocolError, Reply, StreamedBodyReply
from picker.extproc.pb import ext_proc_pb2 as pb

_WORLD_CASES = 5_000
"""Conversations before a new world: what a world keeps is bounded, and the bounds of all of them together are some megabytes."""


class DialogueTarget:
    """One conversation per case."""

    name = "dialogue"

    def __init__(self) -> None:
        self._world = World()
        self._cases = 0

    def __call__(self, dice: Dice) -> None:
        """Raises Finding."""
        self._cases += 1
        if self._cases % _WORLD_CASES == 0:
            self._world = World()
        self._world.now_s += 0.01
        conversation = self._world.conversation()
        try:
            _converse(dice, conversation)
        finally:
            conversation.end()
            conversation.end()
        if busy := self._world.busy():
            self._world = World()
            demand(False, "something is in flight after the end of a conversation", busy)


def _converse(dice: Dice, conversation: Conversation) -> None:
    kind = first_event(dice)
    for _ in range(dice.between(1, 30)):
        data = message(dice, dice.pick(KINDS) if dice.one_in(30) else kind)
        if dice.one_in(12):
            data = scramble(dice, data)
        try:
            event = decode(data)
        except ProtocolError:
            return
        legal = (conversation.state, type(event)) in TRANSITIONS
        try:
            replies = conversation.receive(event)
        except ProtocolError as error:
            demand(not legal, "a legal event is refused", type(event).__name__, str(error))
            return
        demand(legal, "an illegal event is taken", conversation.state, type(event).__name__)
        for reply in replies:
            _check(reply)
        following = next_event(dice, conversation.state)
        if following is None:
            return
        kind = following


def _check(reply: Reply) -> None:
    """The codec writes some replies by hand: protobuf must read the same."""
    read = pb.ProcessingResponse.FromString(encode(reply))
    kind = read.WhichOneof("response")
    demand(kind is not None, "a reply that says nothing", reply)
    if isinstance(reply, StreamedBodyReply):
        streamed = getattr(read, kind or "").response.body_mutation.streamed_response
        demand((streamed.body, streamed.end_of_stream) == (reply.body, reply.end_of_stream), "a body is encoded wrongly", reply)
