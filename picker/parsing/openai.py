"""openai-parser: the OpenAI HTTP API as model servers speak it.

Texts of refusals and the choice of fields follow the endpoint-picker contract, section 1.9. Audio and image-edit requests, which the
reference has no parser for, are passed on as they are: only their model name is looked for.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import msgspec

from picker.errors import BadRequest
from picker.parsing.content import Canvas, Message, PromptInput, input_prompt
from picker.parsing.fields import ABSENT, Common, decode, token_limit
from picker.parsing.multipart import form_field
from picker.parsing.paths import SuffixTable
from picker.plugin import Handle, NoParameters
from picker.prompt import NO_PROMPT, Prompt
from picker.request import ParsedBody, UsageFormat

Headers = Mapping[str, str]
Read = Callable[[Headers, bytes], ParsedBody]

NO_MESSAGES = "invalid chat completions request: must have valid messages field"
NO_PROMPT_FIELD = "invalid completions request: must have prompt field"
NO_EMBEDDINGS_INPUT = "invalid embeddings request: must have input field"
NO_RESPONSES_INPUT = "invalid responses request: must have input field"
NO_ITEMS = "invalid conversations request: must have items field"
NO_IMAGE_PROMPT = "invalid images generations request: must have prompt field"


class _Chat(Common, gc=False):
    messages: list[Message] | None = None
    max_completion_tokens: Any = None
    max_tokens: Any = None
    tools: msgspec.Raw = ABSENT


class _Completion(Common, gc=False):
    prompt: PromptInput | None = None
    max_tokens: Any = None


class _Embedding(Common, gc=False):
    input: PromptInput | None = None


class _Response(Common, gc=False):
    input: str | list[msgspec.Raw] | None = None
    instructions: str | None = None
    max_output_tokens: Any = None
    tools: msgspec.Raw = ABSENT


class _Conversation(Common, gc=False):
    items: list[msgspec.Raw] | None = None


class _Image(Common, gc=False):
    prompt: str | None = None


class _Named(msgspec.Struct, gc=False):
    model: Any = None


_CHAT = msgspec.json.Decoder(_Chat)
_COMPLETION = msgspec.json.Decoder(_Completion)
_EMBEDDING = msgspec.json.Decoder(_Embedding)
_RESPONSE = msgspec.json.Decoder(_Response)
_CONVERSATION = msgspec.json.Decoder(_Conversation)
_IMAGE = msgspec.json.Decoder(_Image)
_NAMED = msgspec.json.Decoder(_Named)


def _chat(headers: Headers, body: bytes, usage: UsageFormat = UsageFormat.OPENAI) -> ParsedBody:
    chat = decode(_CHAT, body, "chat completions", "messages", NO_MESSAGES)
    if not chat.messages:
        raise BadRequest(NO_MESSAGES)
    limit = token_limit(chat.max_completion_tokens, "chat completions", "max_completion_tokens")
    older = token_limit(chat.max_tokens, "chat completions", "max_tokens")
    canvas = Canvas(headers)
    canvas.messages(chat.messages)
    return chat.parsed(canvas.prompt(chat.tools), usage, older if limit is None else limit)


def _completion(headers: Headers, body: bytes, usage: UsageFormat = UsageFormat.OPENAI) -> ParsedBody:
    completion = decode(_COMPLETION, body, "completions", "prompt", NO_PROMPT_FIELD)
    if completion.prompt is None:
        raise BadRequest(NO_PROMPT_FIELD)
    return completion.parsed(input_prompt(completion.prompt), usage, token_limit(completion.max_tokens, "completions", "max_tokens"))


def _chat_render(headers: Headers, body: bytes) -> ParsedBody:
    return _chat(headers, body, UsageFormat.NONE)


def _completion_render(headers: Headers, body: bytes) -> ParsedBody:
    return _completion(headers, body, UsageFormat.NONE)


def _embedding(headers: Headers, body: bytes) -> ParsedBody:
    embedding = decode(_EMBEDDING, body, "embeddings", "input", NO_EMBEDDINGS_INPUT)
    if embedding.input is None:
        raise BadRequest(NO_EMBEDDINGS_INPUT)
    return embedding.parsed(input_prompt(embedding.input), UsageFormat.OPENAI)


def _response(headers: Headers, body: bytes) -> ParsedBody:
    response = decode(_RESPONSE, body, "responses", "input", NO_RESPONSES_INPUT)
    if response.input is None:
        raise BadRequest(NO_RESPONSES_INPUT)
    canvas = Canvas(headers)
    canvas.content(response.instructions)
    _items(canvas, response.input)
    limit = token_limit(response.max_output_tokens, "responses", "max_output_tokens")
    return response.parsed(canvas.prompt(response.tools), UsageFormat.RESPONSES, limit)


def _conversation(headers: Headers, body: bytes) -> ParsedBody:
    """Conversations belong to no model in OpenAI's API, so that none is asked for."""
    conversation = decode(_CONVERSATION, body, "conversations", "items", NO_ITEMS)
    if conversation.items is None:
        raise BadRequest(NO_ITEMS)
    canvas = Canvas(headers)
    _items(canvas, conversation.items)
    return conversation.parsed(canvas.prompt(), UsageFormat.NONE, model_required=False, model_insertable=False)


def _items(canvas: Canvas, items: str | list[msgspec.Raw]) -> None:
    """Each item by itself, so that a longer conversation starts with the same bytes as a shorter one."""
    if isinstance(items, str):
        canvas.content(items)
        return
    for item in items:
        canvas.json(item)


def _image(headers: Headers, body: bytes) -> ParsedBody:
    image = decode(_IMAGE, body, "images generations", "prompt", NO_IMAGE_PROMPT)
    if image.prompt is None:
        raise BadRequest(NO_IMAGE_PROMPT)
    return image.parsed(Prompt(image.prompt.encode()), UsageFormat.OPENAI)


def _opaque(headers: Headers, body: bytes) -> ParsedBody:
    """Audio in or out, image edits: a form or JSON, of which only the model name matters here. Never refused."""
    content_type = headers.get("content-type", "")
    if content_type.lower().startswith("multipart/"):
        # The form is not taken apart, hence it cannot be put together again with another name.
        return ParsedBody(
            model=form_field(content_type, body, "model"), usage_format=UsageFormat.OPENAI, model_required=False, model_rewritable=False
        )
    model = named_model(body)
    return ParsedBody(model=model, usage_format=UsageFormat.OPENAI, model_required=False, model_rewritable=model is not None)


def _speech(headers: Headers, body: bytes) -> ParsedBody:
    """The answer is sound, hence without usage."""
    model = named_model(body)
    return ParsedBody(model=model, prompt=NO_PROMPT, model_required=False, model_rewritable=model is not None)


def named_model(body: bytes) -> str | None:
    """The top-level model of a JSON body that need not be one."""
    try:
        model = _NAMED.decode(body).model
    except (ValueError, RecursionError):
        return None
    return model if isinstance(model, str) and model else None


APIS: Mapping[str, Read] = {
    "chat/completions": _chat,
    "completions": _completion,
    "embeddings": _embedding,
    "responses": _response,
    "conversations": _conversation,
    "chat/completions/render": _chat_render,
    "completions/render": _completion_render,
    "images/generations": _image,
    "images/edits": _opaque,
    "audio/transcriptions": _opaque,
    "audio/translations": _opaque,
    "audio/speech": _speech,
}


class OpenAIParser:
    """The paths of the reference's openai-parser, plus audio and image edits."""

    type = "openai-parser"
    Parameters = NoParameters
    protocols: Sequence[str] = ("http", "h2c")
    paths: Sequence[str] = tuple(APIS)

    def __init__(self, name: str, parameters: NoParameters, handle: Handle) -> None:
        self.name = name
        self._apis: SuffixTable[Read] = SuffixTable(APIS.items())

    def parse(self, path: str, headers: Headers, body: bytes) -> ParsedBody:
        """What the body asks for. Raises `BadRequest`."""
        read = self._apis.find(path)
        if read is None:
            raise BadRequest(f"unsupported path for {self.type}: {path[:200]}")
        return read(headers, body)
