"""Messages of vLLM's gRPC API, written field by field, and the frames around them."""

from __future__ import annotations

from collections.abc import Sequence

GENERATE = "/vllm.grpc.engine.VllmEngine/Generate"
EMBED = "/vllm.grpc.engine.VllmEngine/Embed"


def varint(value: int) -> bytes:
    """Seven bits a byte, low ones first."""
    out = bytearray()
    while value >= 0x80:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*out, value])


def field(number: int, value: int | bytes | str) -> bytes:
    """An int as varint, everything else with its length."""
    if isinstance(value, int):
        return varint(number << 3) + varint(value)
    raw = value.encode() if isinstance(value, str) else value
    return varint(number << 3 | 2) + varint(len(raw)) + raw


def packed(number: int, values: Sequence[int]) -> bytes:
    """Repeated numbers in one field."""
    return field(number, b"".join(map(varint, values)))


def frame(message: bytes, flag: int = 0) -> bytes:
    """A message with its prefix."""
    return bytes([flag]) + len(message).to_bytes(4, "big") + message


def generate(ids: Sequence[int] = (), *, text: str = "", max_tokens: int | None = None, stream: bool = False) -> bytes:
    """The body of a Generate call."""
    message = field(1, "request-1")
    message += field(2, field(1, "for people") + packed(2, ids)) if ids else b""
    message += field(3, text) if text else b""
    message += field(4, varint(1 << 3 | 5) + b"\0\0\x80\x3f" + (b"" if max_tokens is None else field(8, max_tokens)))
    return frame(message + (field(5, 1) if stream else b""))


def embed(ids: Sequence[int]) -> bytes:
    """The body of an Embed call."""
    return frame(field(1, "request-1") + field(2, packed(2, ids)))


def chunk(ids: Sequence[int], prompt: int = 0, completion: int = 0, cached: int = 0, index: int = 0) -> bytes:
    """One message of a streamed answer; zeros are left out, as proto3 does."""
    parts = packed(1, ids)
    return frame(field(1, parts + _numbers((2, prompt), (3, completion), (4, cached), (7, index))))


def complete(ids: Sequence[int], prompt: int = 0, completion: int = 0, cached: int = 0, index: int = 0) -> bytes:
    """The last message of an answer."""
    parts = packed(1, ids) + field(2, "stop")
    return frame(field(2, parts + _numbers((3, prompt), (4, completion), (5, cached), (8, index))))


def embedding(size: int, prompt: int) -> bytes:
    """The answer of an Embed call: `size` floats."""
    return frame(field(1, b"\0\0\x80\x3f" * size) + field(2, prompt) + field(3, size))


def _numbers(*pairs: tuple[int, int]) -> bytes:
    return b"".join(field(number, value) for number, value in pairs if value)
