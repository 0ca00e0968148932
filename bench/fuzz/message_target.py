"""gRPC's length-prefixed messages, cut anywhere, packed well and badly."""

from __future__ import annotations

import gzip
import struct
import zlib
from collections.abc import Callable

from bench.fuzz.dice import Dice, scramble
from bench.fuzz.finding import demand
from picker.extproc.h2.grpc_messages import MessageReader
from picker.extproc.h2.status import Status, StatusError

LIMIT_BYTES = 5_000
_PREFIX = struct.Struct(">BI")
_PACKERS: dict[bytes, Callable[[bytes], bytes]] = {
    b"identity": bytes,
    b"gzip": lambda data: gzip.compress(data, 1, mtime=0),
    b"deflate": zlib.compress,
}
ENCODINGS = tuple(_PACKERS)


def framed(dice: Dice, data: bytes, encoding: bytes) -> bytes:
    """One message with its prefix; one in five is wrong in some way."""
    flag = dice.number(2) if encoding != b"identity" else 0
    packed = _PACKERS[encoding](data) if flag else data
    if not dice.one_in(5):
        return _PREFIX.pack(flag, len(packed)) + packed
    kind = dice.number(5)
    if kind == 0:
        return _PREFIX.pack(dice.number(256), len(packed)) + packed
    if kind == 1:
        return _PREFIX.pack(flag, (len(packed) + dice.between(-3, 3)) % 2**32) + packed
    if kind == 2:
        return _PREFIX.pack(flag, dice.pick((LIMIT_BYTES, LIMIT_BYTES + 1, 2**31, 2**32 - 1))) + packed
    packed = scramble(dice, packed) if kind == 3 else packed[: dice.number(len(packed) + 1)]
    return _PREFIX.pack(1, len(packed)) + packed


class MessageTarget:
    """One reader twice per case: once fed as the cuts have it, once byte by byte."""

    name = "messages"

    def __call__(self, dice: Dice) -> None:
        """Raises Finding."""
        encoding = dice.pick(ENCODINGS)
        data = b"".join([framed(dice, self._message(dice), encoding) for _ in range(dice.number(6))])
        if dice.one_in(6):
            data = scramble(dice, data)
        cut, cut_status = _read(encoding, dice.cuts(data, 8))
        single, single_status = _read(encoding, [data[i : i + 1] for i in range(len(data))])
        demand(cut_status is single_status, "cuts change how reading ends", encoding, data, cut_status, single_status)
        # What a read holds in front of a message that cannot be read goes with it.
        demand(single[: len(cut)] == cut, "cuts change what is read", encoding, data)
        demand(cut_status is not None or len(cut) == len(single), "cuts lose a message", encoding, data)

    @staticmethod
    def _message(dice: Dice) -> bytes:
        data = dice.bytes_up_to(200)
        return data * dice.pick((1, 10, 30, 60)) if dice.one_in(6) else data


def _read(encoding: bytes, pieces: list[bytes]) -> tuple[list[bytes], Status | None]:
    reader = MessageReader(encoding, LIMIT_BYTES)
    found: list[bytes] = []
    for piece in pieces:
        around = b"<" + piece + b">"
        try:
            found += reader.feed(around, 1, len(around) - 1)
        except StatusError as error:
            return found, error.status
        demand(reader.held_bytes < LIMIT_BYTES + 5, "an incomplete message is larger than any may be", reader.held_bytes)
    demand(all(len(message) <= LIMIT_BYTES for message in found), "a message beyond the limit")
    return found, None
