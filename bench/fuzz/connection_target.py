"""Bytes of whole conversations into a server connection, cut anywhere, with time passing and calls answering late."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from random import Random

from bench.fuzz.client import Script, damaged, dialogues
from bench.fuzz.dice import Chance, Dice, scramble
from bench.fuzz.finding import demand
from bench.fuzz.witness import Witness
from bench.fuzz.world import World
from picker.extproc.h2 import frames as h2
from picker.extproc.h2.call import Responder
from picker.extproc.h2.connection import Connection
from picker.extproc.h2.grpc_messages import prefix
from picker.extproc.h2.limits import Limits
from picker.extproc.h2.status import Status, StatusError
from picker.extproc.h2.stream import Stream

ECHO = b"/test.Echo/Echo"
LIMITS = Limits(
    max_message_bytes=60_000, connection_bytes=150_000, stream_outbound_bytes=8_000, write_bytes=50_000, stall_s=3.0, keepalive_s=4.0,
    keepalive_timeout_s=2.0, handshake_s=5.0, linger_s=1.0, max_streams=5, header_block_bytes=20_000, header_list_bytes=8_000,
)  # fmt: skip
_DIALOGUES = 300
_WORLD_CASES = 5_000
_MOST_TAKES = 10_000


class _Echo:
    """Answers each message with itself; every length means something else, too."""

    def __init__(self, calls: list[_Echo], responder: Responder) -> None:
        self.responder = responder
        self.ends = 0
        self.finished = False
        self.received: list[bytes] = []
        calls.append(self)

    def message(self, data: bytes) -> Sequence[bytes]:
        demand(not self.ends, "a message for a call that has ended")
        self.received.append(data)
        kind = len(data) % 50
        if kind == 40:
            raise StatusError(Status.INVALID_ARGUMENT, "wrong length ü")
        self.finished = kind == 41
        return (data,) * _copies(data)

    def half_closed(self) -> bool:
        demand(not self.ends, "a half-close for a call that has ended")
        return True

    def end(self, status: Status) -> None:
        self.ends += 1


def _copies(data: bytes) -> int:
    kind = len(data) % 50
    return 1 if kind < 35 else 3 * (kind - 30)


class ConnectionTarget:
    """One connection per case."""

    name = "connection"

    def __init__(self) -> None:
        self._dialogues = dialogues(Dice(Chance(Random(0))), _DIALOGUES)
        self._world = World()
        self._cases = 0

    def __call__(self, dice: Dice) -> None:
        """Raises Finding."""
        self._cases += 1
        if self._cases % _WORLD_CASES == 0:
            self._world = World()
        valid = dice.one_in(4)
        script = Script(dice, self._dialogues, ECHO, valid=valid)
        frames = script.frames if valid or dice.one_in(3) else damaged(dice, script.frames)
        data = h2.PREFACE + b"".join([frame.pack() for frame in frames])
        if not valid and dice.one_in(8):
            data = scramble(dice, data)
        _Run(dice, self._world, data, script.echoed if valid else None).run()
        if busy := self._world.busy():
            self._world = World()
            demand(False, "something is in flight after the end of a connection", busy)


class _Run:
    """`echoed`: of a client that does nothing wrong, in no time; its connection must live to the end, and its echoes be right."""

    def __init__(self, dice: Dice, world: World, data: bytes, echoed: Mapping[int, Sequence[bytes]] | None) -> None:
        self._dice = dice
        self._data = data
        self._echoed = echoed
        self._now_s = 100.0
        self._calls: list[_Echo] = []
        methods = {**world.methods, ECHO: lambda responder: _Echo(self._calls, responder)}
        self._connection = Connection(methods, LIMITS, self._now_s, lambda: None)
        self._witness = Witness(data)

    def run(self) -> None:
        """To the end of the data, then the loss of the connection."""
        dice, connection = self._dice, self._connection
        pieces = [self._data] if dice.one_in(4) else dice.cuts(self._data, 30)
        for piece in pieces:
            connection.receive(piece, self._now_s)
            self._bounded(len(piece))
            if not dice.one_in(5):
                self._take()
            if self._echoed is None:
                self._meanwhile()
        self._take()
        if self._echoed is not None:
            demand(not connection.closing, "the connection of a client that did nothing wrong is closed", self._data)
            for stream, messages in self._echoed.items():
                self._check_echo(stream, messages)
        connection.lost()
        self._nothing_left()

    def _check_echo(self, stream: int, messages: Sequence[bytes]) -> None:
        """As far as windows and the client's reset let it come, everything must have come in order."""
        said = b"".join([(prefix(len(m)) + m) * _copies(m) for m in messages])
        body = self._witness.bodies.get(stream, b"")
        demand(said.startswith(body), "an echo is wrong", stream, body, said, self._data)
        for call in self._calls:
            if isinstance(call.responder, Stream) and call.responder.id == stream:
                demand(call.received == list(messages[: len(call.received)]), "messages are lost or changed", stream, self._data)

    def _meanwhile(self) -> None:
        """What happens beside the client's bytes."""
        dice, connection = self._dice, self._connection
        what = dice.number(12)
        if what == 1:
            self._now_s += dice.pick((0.05, 0.5, 2.0, 4.0))
            connection.tick(self._now_s)
        elif what == 2 and dice.one_in(5):
            connection.drain(self._now_s)
        elif what == 3 and self._calls:
            dice.pick(self._calls).responder.send(b"later" * dice.between(1, 2_000))
        elif what == 4 and self._calls:
            dice.pick(self._calls).responder.finish(dice.pick((Status.OK, Status.UNAVAILABLE)), "later")
        elif what == 5 and dice.one_in(20):
            connection.shut_down()

    def _take(self) -> None:
        connection = self._connection
        for _ in range(_MOST_TAKES):
            self._witness.saw(connection.take())
            if not connection.backlogged:
                return
        demand(False, "there is always more to take", self._data)

    def _bounded(self, just_came: int) -> None:
        connection = self._connection
        held = sum([s.memory_bytes for s in connection.streams.values()]) + len(connection.openings.block or b"") + len(connection._buffer)
        # A read is handled as a whole: its own answers, each as large as a message may be, come on top.
        most = LIMITS.connection_bytes + 8 * just_came + LIMITS.header_block_bytes + 60_000
        demand(held <= most, "a connection holds too much", held, self._data)
        demand(len(connection.streams) <= LIMITS.max_streams, "too many streams")

    def _nothing_left(self) -> None:
        connection = self._connection
        kept = (
            connection.streams, connection.intake.paused, connection.intake.memory_bytes, connection._buffer, connection.openings.block,
            len(connection.lifetime.deadlines), connection.backlogged,
        )  # fmt: skip
        demand(not any(kept), "something is left of a lost connection", kept, self._data)
        demand(all(call.ends == 1 for call in self._calls), "a call ended not once", [call.ends for call in self._calls], self._data)
        connection.receive(b"more", self._now_s)
        connection.tick(self._now_s + 100)
        demand(not connection.take(), "a lost connection speaks", self._data)
