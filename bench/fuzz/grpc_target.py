"""Answers and requests of gRPC calls: any cut of any bytes gives the same usage, and nothing but a refusal escapes."""

from __future__ import annotations

from bench.fuzz.dice import Dice, scramble
from bench.fuzz.finding import demand
from picker.accounting.grpc_usage import VllmUsageReader
from picker.errors import BadRequest
from picker.grpc_frames import framed
from picker.parsing.vllm_grpc import EMBED, GENERATE, VllmGrpcParser
from picker.plugin import NoParameters
from picker.request import UsageFormat
from picker.result import Usage

_MESSAGES = (
    b"\x0a\x09\x0a\x03\xf0\xa2\x04\x10\x0b\x18\x01",  # chunk: an id, 11 prompt tokens, 1 new one
    b"\x12\x07\x0a\x01\x05\x18\x0b\x20\x01",  # complete: an id, 11 prompt tokens, 1 in all
    b"\x0a\x04\x80\x80\x80\x3f\x10\x07",
    b"\x0a\x01x\x12\x05\x12\x03\x01\x02\x03\x28\x01",  # a request: three ids, streamed
    b"",
)


class GrpcTarget:
    """One answer per case, and its bytes as a request."""

    name = "grpc"

    def __init__(self) -> None:
        self._parser = VllmGrpcParser("fuzz", NoParameters(), None)  # type: ignore[arg-type]

    def __call__(self, dice: Dice) -> None:
        """Raises Finding."""
        body = b"".join(framed(dice.pick(_MESSAGES)) for _ in range(dice.between(1, 6)))
        if dice.number(2):
            body = scramble(dice, body)
        format_ = UsageFormat.VLLM_EMBED if dice.one_in(4) else UsageFormat.VLLM_GENERATE
        step = dice.between(1, 12)
        demand(_usage(body, format_, step) == _usage(body, format_, len(body) or 1), "the cut decides about the usage", body, step)
        for path in (GENERATE, EMBED):
            try:
                self._parser.parse(f"/{path}", {}, body)
            except BadRequest:
                pass


def _usage(body: bytes, format: UsageFormat, step: int) -> Usage | None:
    reader = VllmUsageReader(format)
    for start in range(0, len(body), step):
        reader.feed(body[start : start + step])
    return reader.finish()
