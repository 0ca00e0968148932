"""The targets by name."""

from __future__ import annotations

from typing import Protocol

from bench.fuzz.block_target import BlockTarget
from bench.fuzz.connection_target import ConnectionTarget
from bench.fuzz.dialogue_target import DialogueTarget
from bench.fuzz.dice import Dice
from bench.fuzz.grpc_target import GrpcTarget
from bench.fuzz.message_target import MessageTarget


class Target(Protocol):
    """Runs one case; raises Finding, or whatever escapes from the code under test."""

    name: str

    def __call__(self, dice: Dice) -> None: ...


def targets() -> dict[str, Target]:
    """New ones."""
    made: list[Target] = [ConnectionTarget(), BlockTarget(), MessageTarget(), DialogueTarget(), GrpcTarget()]
    return {target.name: target for target in made}
