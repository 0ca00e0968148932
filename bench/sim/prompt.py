"""From request bodies to prompts: lists of token ids, laid out so that a conversation's next turn shares a prefix."""

from __future__ import annotations

from array import array
from typing import Any, TypeAlias

from bench.sim.bodies import Message, Parts
from bench.sim.errors import ApiError
from bench.sim.text import END_MARK, LAST_ID, MARKS, tokenize

# A vision model of the usual size spends about this much on a picture; the pixels are not looked at.
MEDIA_TOKENS = 256

Prompt: TypeAlias = "array[int]"


def chat_prompt(messages: list[Message], system: Parts = None, *, answer: bool = True) -> Prompt:
    """Every message between its role's mark and an end mark; with `answer`, the mark that asks for the reply."""
    tokens: list[int] = []
    if system is not None:
        _append(tokens, "system", system)
    for message in messages:
        _append(tokens, message.role, message.content)
    if answer:
        tokens.append(MARKS["assistant"])
    return array("I", tokens)


def responses_messages(given: str | list[dict[str, Any]]) -> list[Message]:
    """The `input` of /v1/responses as chat messages."""
    if isinstance(given, str):
        return [Message(role="user", content=given)]
    messages: list[Message] = []
    for item in given:
        role, content = item.get("role"), item.get("content")
        if role is None:
            continue
        if not isinstance(role, str) or not isinstance(content, str | list):
            raise ApiError(400, "input: expected items with a role and a content", param="input")
        messages.append(Message(role=role, content=content))
    return messages


def text_prompts(given: str | list[str | int | list[int]], param: str) -> list[Prompt]:
    """The prompts of a completion or an embedding: a text, token ids, or a list of either."""
    if isinstance(given, str):
        return [_text(given, param)]
    if not given:
        raise ApiError(400, f"{param}: expected at least one prompt", param=param)
    prompts: list[Prompt] = []
    if all(isinstance(item, int) for item in given):
        return [_ids([item for item in given if isinstance(item, int)], param)]
    for item in given:
        if isinstance(item, int):
            raise ApiError(400, f"{param}: expected texts or token ids, not both", param=param)
        prompts.append(_text(item, param) if isinstance(item, str) else _ids(item, param))
    return prompts


def _text(text: str, param: str) -> Prompt:
    tokens = tokenize(text)
    if not tokens:
        # vLLM's tokenizers put a begin-of-text token in front, so that an empty prompt is one token long.
        tokens = [END_MARK]
    return array("I", tokens)


def _ids(ids: list[int], param: str) -> Prompt:
    if not ids:
        raise ApiError(400, f"{param}: expected at least one token id", param=param)
    for token in ids:
        if not 0 <= token <= LAST_ID:
            raise ApiError(400, f"{param}: token id {token} is out of vocabulary", param=param)
    return array("I", ids)


def _append(tokens: list[int], role: str, content: Parts) -> None:
    tokens.append(MARKS.get(role, MARKS["user"]))
    if isinstance(content, str):
        tokens.extend(tokenize(content))
    for part in content if isinstance(content, list) else []:
        tokens.extend(_part(part))
    tokens.append(END_MARK)


def _part(part: str | dict[str, Any]) -> list[int]:
    """The tokens of one content part: its text, or a fixed number for an image, sound, video or file."""
    if not isinstance(part, dict):
        return tokenize(str(part))
    kind = part.get("type")
    if not isinstance(kind, str):
        raise ApiError(400, "messages.content: expected parts with a type", param="messages")
    text = part.get("text")
    if kind in ("text", "input_text", "output_text"):
        if not isinstance(text, str):
            raise ApiError(400, f"messages.content: expected a text in a part of type {kind}", param="messages")
        return tokenize(text)
    if any(medium in kind for medium in ("image", "audio", "video", "file", "document")):
        # The same picture gives the same tokens, and so hits the prefix cache.
        return [tokenize(repr(part)[:65536].replace(" ", ""))[0]] * MEDIA_TOKENS
    return tokenize(text) if isinstance(text, str) else []
