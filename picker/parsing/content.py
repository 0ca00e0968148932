"""From messages, parts and prompts to the canonical prompt (`picker.prompt`).

Text is concatenated in the order of the request: tools, then role and content of each message. A medium adds a fingerprint of two
tokens in place of its data, so that two pictures are two prefixes, and the rest of its estimate as extra tokens.
"""

from __future__ import annotations

import sys
from array import array
from collections.abc import Iterable, Mapping
from typing import Annotated, Any

import msgspec

from picker.errors import BadRequest
from picker.parsing.fields import ABSENT
from picker.parsing.media import FILE, KINDS, media_digest, media_tokens
from picker.prompt import Medium, Prompt

TokenId = Annotated[int, msgspec.Meta(ge=0, le=2**32 - 1)]
PromptInput = str | list[str | TokenId | list[TokenId]]
_FINGERPRINT_TOKENS = 2
_EMPTY_TOOLS = (b"", b"null", b"[]")
_MEDIA_FIELDS = ("image_url", "input_audio", "audio_url", "video_url", "source", "file", "image", "audio", "video", "file_data")


class Part(msgspec.Struct, gc=False):
    """A part of a message's content. What may be large or nested stays undecoded until it is known to be text."""

    type: str | None = None
    text: str | None = None
    thinking: str | None = None
    refusal: str | None = None
    image_url: msgspec.Raw = ABSENT
    input_audio: msgspec.Raw = ABSENT
    audio_url: msgspec.Raw = ABSENT
    video_url: msgspec.Raw = ABSENT
    image: msgspec.Raw = ABSENT
    audio: msgspec.Raw = ABSENT
    video: msgspec.Raw = ABSENT
    file: msgspec.Raw = ABSENT
    file_data: msgspec.Raw = ABSENT
    source: msgspec.Raw = ABSENT
    input: msgspec.Raw = ABSENT
    content: msgspec.Raw = ABSENT


Content = str | list[str | Part] | None


class Message(msgspec.Struct, gc=False):
    """One turn of a conversation."""

    role: str | None = None
    content: Content = None


class Canvas:
    """Collects the canonical prompt of one request. `headers` size videos."""

    __slots__ = ("_extra", "_headers", "_media", "_pieces")

    def __init__(self, headers: Mapping[str, str]) -> None:
        self._pieces: list[str] = []
        self._extra = 0
        self._media: list[Medium] = []
        self._headers = headers

    def prompt(self, tools: msgspec.Raw = ABSENT) -> Prompt:
        """What was collected, after the JSON of `tools`."""
        data = "".join(self._pieces).encode()
        raw = bytes(tools)
        return Prompt(data if raw in _EMPTY_TOOLS else raw + data, self._extra, self._media)

    def messages(self, messages: Iterable[Message]) -> None:
        """Role and content of each message."""
        add = self._pieces.append
        for message in messages:
            if message.role:
                add(message.role)
            content = message.content
            if type(content) is str:
                add(content)
            elif content:
                self.content(content)

    def content(self, content: Content) -> None:
        """A string, or the parts of one message."""
        if content is None:
            return
        if isinstance(content, str):
            self._pieces.append(content)
            return
        for part in content:
            if isinstance(part, str):
                self._pieces.append(part)
            else:
                self._part(part)

    def _part(self, part: Part) -> None:
        kind = KINDS.get(part.type or "")
        if kind is not None:
            for name in _MEDIA_FIELDS:
                source = bytes(getattr(part, name))
                if source:
                    self._medium(kind, source)
                    return
            self._medium(kind, b"")
            return
        for text in (part.text, part.thinking, part.refusal):
            if text:
                self._pieces.append(text)
        for raw in (part.input, part.content):
            self.json(raw)

    def json(self, raw: msgspec.Raw) -> None:
        """JSON as it stands, unless it holds inline data: then its strings, with an estimate for each medium.

        Raises `BadRequest` for JSON that decodes only as long as nobody looks at it (invalid UTF-8, numbers out of range).
        """
        data = bytes(raw)
        if b"base64" not in data:
            if data != b"null":
                self._pieces.append(data.decode("utf-8", "replace"))
            return
        # Depth first with a stack of our own: what is nested here was written by the client.
        try:
            stack: list[Any] = [msgspec.json.decode(data)]
        except (ValueError, RecursionError) as error:
            raise BadRequest(f"invalid content: {error}") from None
        while stack:
            value = stack.pop()
            if isinstance(value, str):
                self._pieces.append(value)
            elif isinstance(value, list):
                stack.extend(reversed(value))
            elif isinstance(value, dict):
                kind = KINDS.get(value["type"]) if isinstance(value.get("type"), str) else None
                if kind is None:
                    stack.extend(reversed(value.values()))
                else:
                    self._medium(kind, msgspec.json.encode(value))

    def _medium(self, kind: str, source: bytes) -> None:
        if kind == FILE and b"base64" not in source:
            self._pieces.append(source.decode("utf-8", "replace"))
            return
        digest = media_digest(source)
        self._pieces.append(f"{digest & 0xFFFFFFFF:08x}")
        if kind != FILE and source:
            self._media.append(Medium(kind, digest))
        self._extra += max(media_tokens(kind, source, self._headers) - _FINGERPRINT_TOKENS, 0)


def pack_token_ids(ids: Iterable[int]) -> bytes:
    """Token ids as little-endian uint32."""
    packed = array("I", ids)
    if sys.byteorder == "big":
        packed.byteswap()
    return packed.tobytes()


def input_prompt(value: PromptInput) -> Prompt:
    """The prompt of a completion or embedding: a string, strings, token ids, or lists of token ids."""
    if isinstance(value, str):
        return Prompt(value.encode())
    try:
        return Prompt(pack_token_ids(value))  # type: ignore[arg-type]
    except TypeError:
        pass
    pieces: list[bytes] = []
    for item in value:
        if isinstance(item, str):
            pieces.append(item.encode())
        else:
            pieces.append(pack_token_ids((item,) if isinstance(item, int) else item))
    return Prompt(b"".join(pieces))
