"""A client's frames: conversations that are right, and all the ways in which they go wrong."""

from __future__ import annotations

import struct
from dataclasses import dataclass, replace

from bench.fuzz.block_target import BASE, Blocks
from bench.fuzz.dialogues import first_event, message, next_event
from bench.fuzz.dice import Dice, scramble
from bench.fuzz.message_target import framed
from bench.fuzz.world import World
from picker.extproc.codec import decode
from picker.extproc.events import ProtocolError
from picker.extproc.h2 import frames as h2
from picker.extproc.h2.headers import literal

_WORD = struct.Struct(">I")
_SETTING = struct.Struct(">HI")
_PAYLOADS = (b"", b"\0" * 4, b"\xff" * 4, b"\0" * 8, _SETTING.pack(4, h2.MAX_WINDOW), _SETTING.pack(4, 2**31), _SETTING.pack(4, 0))
_EXTRA = (
    (b"grpc-timeout", b"1S"),
    (b"grpc-timeout", b"0n"),
    (b"content-type", b"text/plain"),
    (b":method", b"GET"),
    (b":path", b"/no/such"),
)
"""What makes another call of a request, or none."""


@dataclass(frozen=True, slots=True)
class Frame:
    """`length` None: that of the payload."""

    kind: int
    flags: int
    stream: int
    payload: bytes = b""
    length: int | None = None

    def pack(self) -> bytes:
        """On the wire."""
        length = len(self.payload) if self.length is None else self.length
        return h2.frame_header(length & 0xFF_FFFF, self.kind & 0xFF, self.flags & 0xFF, self.stream & 0xFFFF_FFFF) + self.payload


class Script:
    """What one client says: `frames` in order. `valid`: nothing in it breaks HTTP/2 or gRPC."""

    def __init__(self, dice: Dice, dialogues: list[list[bytes]], echo: bytes, *, valid: bool) -> None:
        self._dice = dice
        self._valid = valid
        self._blocks = Blocks()
        self.echoed: dict[int, list[bytes]] = {}
        """The messages of the streams that ask for an echo, when valid."""
        streams = [self._stream(2 * i + 1, dialogues, echo) for i in range(dice.between(1, 6))]
        self.frames = [Frame(h2.SETTINGS, 0, 0, self._settings()), Frame(h2.SETTINGS, h2.ACK, 0), *self._interleaved(streams)]

    def _settings(self) -> bytes:
        dice = self._dice
        entries = b""
        if dice.number(2):
            entries += _SETTING.pack(4, dice.pick((1_000_000, 100, 1, 0, 1 << 30)))
        if dice.one_in(3):
            entries += _SETTING.pack(dice.pick((1, 3, 6, 99)), dice.number(10_000))
        return entries

    def _stream(self, stream: int, dialogues: list[list[bytes]], echo: bytes) -> list[Frame]:
        dice = self._dice
        talk, block, encoding = self._opening(stream, dialogues, echo)
        found = self._headers(stream, block)
        wrong = not self._valid and dice.one_in(3)
        body = b"".join([framed(dice, m, encoding) if wrong else struct.pack(">BI", 0, len(m)) + m for m in talk])
        for piece in dice.cuts(body, 4):
            found += self._data(stream, piece)
            if dice.one_in(6):
                found.append(Frame(h2.WINDOW_UPDATE, 0, stream, _WORD.pack(dice.pick((1, 10, 100_000)))))
        end = dice.number(4)
        if end == 0:
            found.append(Frame(h2.RST_STREAM, 0, stream, _WORD.pack(dice.number(14))))
        elif end == 1:
            found.append(Frame(h2.DATA, h2.END_STREAM, stream))
        elif end == 2:
            found.append(Frame(h2.HEADERS, h2.END_STREAM | h2.END_HEADERS, stream, literal([(b"x-checksum", b"1")])))
        return found

    def _opening(self, stream: int, dialogues: list[list[bytes]], echo: bytes) -> tuple[list[bytes], bytes, bytes]:
        """The messages, the header block, the encoding."""
        dice = self._dice
        if not self._valid and dice.number(2):
            return dice.pick(dialogues), self._blocks.next(dice, broken=6), b"gzip"
        to_echo = bool(dice.number(2))
        changed = dict([dice.pick(_EXTRA)]) if dice.one_in(8) else {}
        as_usual = not changed
        if to_echo:
            changed.setdefault(b":path", echo)
        fields = [*{**dict(BASE), **changed}.items()]
        talk = [dice.bytes_up_to(3_000) for _ in range(dice.number(6))] if to_echo else dice.pick(dialogues)
        if to_echo and as_usual:
            self.echoed[stream] = talk
        return talk, self._blocks.encode(fields), b"identity"

    def _headers(self, stream: int, block: bytes) -> list[Frame]:
        dice = self._dice
        flags, before, after = 0, b"", b""
        if dice.one_in(5):
            flags |= h2.PADDED
            after = bytes(dice.number(20))
            before = bytes((len(after),))
        if dice.one_in(5):
            flags |= h2.HAS_PRIORITY
            before += _WORD.pack(0) + b"\x10"
        if not dice.one_in(4):
            return [Frame(h2.HEADERS, flags | h2.END_HEADERS, stream, before + block + after)]
        first, *rest = dice.cuts(block, 3)
        found = [Frame(h2.HEADERS, flags, stream, before + first + after), *[Frame(h2.CONTINUATION, 0, stream, part) for part in rest]]
        found[-1] = replace(found[-1], flags=found[-1].flags | h2.END_HEADERS)
        return found

    def _data(self, stream: int, data: bytes) -> list[Frame]:
        parts = [data[i : i + 16_000] for i in range(0, len(data), 16_000)]
        if not self._dice.one_in(6):
            return [Frame(h2.DATA, 0, stream, part) for part in parts]
        return [Frame(h2.DATA, h2.PADDED, stream, b"\x03" + part + b"\0\0\0") for part in parts]

    def _interleaved(self, streams: list[list[Frame]]) -> list[Frame]:
        """Streams open in the order of their ids, then take turns; nothing comes between the frames of a header block."""
        dice, found = self._dice, []
        waiting, open_ = streams, list[list[Frame]]()
        while waiting or open_:
            if waiting and (not open_ or not dice.number(3)):
                open_.append(waiting.pop(0))
                stream = open_[-1]
            else:
                stream = dice.pick(open_)
            found.append(stream.pop(0))
            while stream and stream[0].kind == h2.CONTINUATION:
                found.append(stream.pop(0))
            if not stream:
                open_ = [other for other in open_ if other is not stream]
            if dice.one_in(8):
                found.append(self._aside())
        return found

    def _aside(self) -> Frame:
        dice = self._dice
        return dice.pick((
            Frame(h2.PING, 0, 0, b"12345678"),
            Frame(h2.WINDOW_UPDATE, 0, 0, _WORD.pack(dice.pick((1, 100, 1_000_000)))),
            Frame(h2.SETTINGS, 0, 0, self._settings()),
            Frame(h2.PRIORITY, 0, 101, _WORD.pack(1) + b"\x10"),
            Frame(0xEE, 0xFF, 77, b"unknown"),
        ))  # fmt: skip


def damaged(dice: Dice, frames: list[Frame]) -> list[Frame]:
    """Frames lost, repeated, swapped, changed, put in."""
    found = list(frames)
    for _ in range(dice.between(1, 3)):
        at = dice.number(len(found))
        frame = found[at]
        kind = dice.number(9)
        if kind == 0 and len(found) > 1:
            del found[at]
        elif kind == 1:
            found[at:at] = [frame] * dice.pick((1, 2, 30))
        elif kind == 2:
            other = dice.number(len(found))
            found[at], found[other] = found[other], found[at]
        elif kind == 3:
            found[at] = replace(frame, flags=frame.flags ^ dice.pick((1, 4, 8, 0x20, 0xFF)))
        elif kind == 4:
            found[at] = replace(frame, stream=dice.pick((0, 1, 2, 3, 5, 99, h2.MAX_STREAM_ID, 2**32 - 1)))
        elif kind == 5:
            found[at] = replace(frame, kind=dice.number(12))
        elif kind == 6:
            found[at] = replace(frame, length=dice.pick((0, 1, 4, 5, 8, 9, 16_384, 16_385, 2**24 - 1)))
        elif kind == 7:
            found[at] = replace(frame, payload=scramble(dice, frame.payload))
        else:
            payload = dice.pick((*_PAYLOADS, dice.bytes_up_to(50)))
            found.insert(at, Frame(dice.number(12), dice.number(256), dice.pick((0, 1, 3, 5, 7, 2, 99)), payload))
    return found


def dialogues(dice: Dice, count: int) -> list[list[bytes]]:
    """Recorded ext_proc streams, as messages."""
    world = World()
    return [_dialogue(dice, world) for _ in range(count)]


def _dialogue(dice: Dice, world: World) -> list[bytes]:
    conversation = world.conversation()
    found: list[bytes] = []
    kind = first_event(dice)
    try:
        for _ in range(dice.between(1, 12)):
            data = message(dice, kind)
            conversation.receive(decode(data))
            found.append(data)
            following = next_event(dice, conversation.state)
            if following is None or conversation.finished:
                break
            kind = following
    except ProtocolError:
        pass  # a body mode that does not exist
    finally:
        conversation.end()
    return found
