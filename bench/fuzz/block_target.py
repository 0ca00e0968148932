"""HPACK header blocks against a decoder that remembers nothing: whatever is cached must mean what it says."""

from __future__ import annotations

from hpack import Decoder, Encoder
from hpack.exceptions import HPACKError

from bench.fuzz.dice import Dice, scramble
from bench.fuzz.finding import Finding, demand
from picker.extproc.h2.errors import ConnectionFault
from picker.extproc.h2.ext_proc_call import PATH
from picker.extproc.h2.headers import BlockDecoder, literal, parse

TABLE_BYTES = 4_096
LIMIT_BYTES = 20_000
BASE: list[tuple[bytes, bytes]] = [
    (b":method", b"POST"), (b":scheme", b"http"), (b":path", PATH), (b":authority", b"picker"), (b"te", b"trailers"),
    (b"content-type", b"application/grpc"),
]  # fmt: skip
_MORE: list[tuple[bytes, bytes]] = [
    (b"grpc-timeout", b"10S"), (b"grpc-encoding", b"gzip"), (b"grpc-encoding", b"snappy"), (b"content-length", b"10"), (b"x-a", b"1"),
    (b"x-a", b"2"), (b"x-long", b"y" * 300), (b"x-longer", b"z" * 5_000), (b"cookie", b"a=b"), (b"connection", b"close"),
    (b"X-Upper", b"1"), (b":path", b"/other"), (b"", b""), (b"grpc-timeout", b"soon"), (b"content-type", b"text/plain"),
    (b"te", b"gzip"), (b"x-bad", b"a\r\nb"),
]  # fmt: skip
_PIECES = (b"\x20", b"\x3f\xe1\x1f", b"\x80", b"\xff\xff\xff\xff\xff\x0f", b"\x00", b"\x7f\x00", b"\x40\x81\xff\x81\xff", b"\xbe", b"\xc6")


def fields(dice: Dice) -> list[tuple[bytes, bytes]]:
    """A gRPC request's header list; now and then one that is none."""
    found = list(BASE)
    for _ in range(dice.number(4)):
        found.insert(len(found) - dice.number(2) * dice.number(len(found)), dice.pick(_MORE))
    if dice.one_in(8):
        del found[dice.number(len(found))]
    return found


class Blocks:
    """Header blocks of one connection, valid ones as an encoder writes them."""

    def __init__(self) -> None:
        self._encoder = Encoder()
        self._seen: list[bytes] = []

    def encode(self, fields: list[tuple[bytes, bytes]]) -> bytes:
        """A block without fault."""
        return self._encoder.encode(fields)

    def next(self, dice: Dice, broken: int) -> bytes:
        """One in `broken` cannot be trusted."""
        kind = dice.number(8)
        if kind == 0:
            self._encoder.header_table_size = dice.pick((0, 100, 1_000, TABLE_BYTES))
        if kind == 1 and self._seen:
            block = dice.pick(self._seen)
        elif kind == 2:
            block = literal(fields(dice))
        else:
            block = self._encoder.encode(fields(dice), huffman=bool(dice.number(2)))
        self._seen = [*self._seen[-4:], block]
        if dice.one_in(broken):
            block = scramble(dice, block) if dice.number(2) else dice.pick(_PIECES) * dice.between(1, 3) + block
        return block


class BlockTarget:
    """The blocks of one connection per case."""

    name = "blocks"

    def __call__(self, dice: Dice) -> None:
        """Raises Finding."""
        blocks = Blocks()
        decoder = BlockDecoder(TABLE_BYTES, LIMIT_BYTES)
        plain = Decoder(LIMIT_BYTES)
        plain.max_allowed_table_size = TABLE_BYTES
        for _ in range(dice.between(1, 25)):
            block = blocks.next(dice, broken=10)
            how = dice.number(4)
            try:
                expected = [(bytes(name), bytes(value)) for name, value in plain.decode(block, raw=True)]
            except (HPACKError, IndexError, ValueError):
                expected = None
            try:
                got = decoder.fields(block) if how == 1 else decoder.trailers(block) if how == 2 else decoder.request(block)
            except ConnectionFault as fault:
                # One rule more than the library has.
                demand(expected is None or "size updates" in str(fault), "a good block is refused", block, str(fault))
                return
            if expected is None:
                raise Finding(f"a bad block is taken: {block!r}")
            if how == 1:
                demand(got == expected, "fields differ", block)
            elif how != 2:
                demand(got == parse(expected), "a remembered head differs from the decoded one", block, got)
