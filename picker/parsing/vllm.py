"""vllmhttp-parser: vLLM's own HTTP API: generation from token ids, tokenizer calls, scoring and reranking.

`inference/v1/generate` is what the reference reads; the other paths it has no parser for.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import msgspec

from picker.errors import BadRequest
from picker.parsing.content import Canvas, Message, TokenId, pack_token_ids
from picker.parsing.fields import ABSENT, Common, decode, token_limit
from picker.parsing.media import hashed_media
from picker.parsing.paths import SuffixTable
from picker.plugin import Handle, NoParameters
from picker.prompt import Medium, Prompt
from picker.request import ParsedBody, UsageFormat

Headers = Mapping[str, str]
Read = Callable[[Headers, bytes], ParsedBody]

NO_TOKEN_IDS = "invalid generate request: must have token_ids field"
NO_TEXT = "invalid tokenize request: must have prompt or messages field"
NO_TOKENS = "invalid detokenize request: must have tokens field"
NO_SCORE_INPUT = "invalid score request: must have two inputs"
NO_DOCUMENTS = "invalid rerank request: must have query and documents fields"


class _Sampling(msgspec.Struct, gc=False):
    max_tokens: Any = None


class _Features(msgspec.Struct):
    mm_hashes: dict[str, list[str | None]] | None = None


class _Generate(Common, gc=False):
    token_ids: list[TokenId] | None = None
    features: msgspec.Raw = ABSENT
    sampling_params: _Sampling | None = None


class _Tokenize(Common, gc=False):
    prompt: str | None = None
    messages: list[Message] | None = None
    tools: msgspec.Raw = ABSENT


class _Detokenize(Common, gc=False):
    tokens: list[TokenId] | None = None


class _Score(Common, gc=False):
    text_1: msgspec.Raw = ABSENT
    text_2: msgspec.Raw = ABSENT
    data_1: msgspec.Raw = ABSENT
    data_2: msgspec.Raw = ABSENT
    queries: msgspec.Raw = ABSENT
    documents: msgspec.Raw = ABSENT
    items: msgspec.Raw = ABSENT


class _Rerank(Common, gc=False):
    query: msgspec.Raw = ABSENT
    documents: msgspec.Raw = ABSENT


_GENERATE = msgspec.json.Decoder(_Generate)
_FEATURES = msgspec.json.Decoder(_Features | None)
_TOKENIZE = msgspec.json.Decoder(_Tokenize)
_DETOKENIZE = msgspec.json.Decoder(_Detokenize)
_SCORE = msgspec.json.Decoder(_Score)
_RERANK = msgspec.json.Decoder(_Rerank)


def _generate(headers: Headers, body: bytes) -> ParsedBody:
    request = decode(_GENERATE, body, "generate", "token_ids", NO_TOKEN_IDS)
    if not request.token_ids:
        raise BadRequest(NO_TOKEN_IDS)
    sampling = request.sampling_params
    limit = token_limit(sampling.max_tokens, "generate", "sampling_params.max_tokens") if sampling else None
    return request.parsed(Prompt(pack_token_ids(request.token_ids), media=_media(request.features)), UsageFormat.OPENAI, limit)


def _media(features: msgspec.Raw) -> list[Medium]:
    """What the renderer said of media. Of another shape, it is the server's to refuse."""
    if not bytes(features):
        return []
    try:
        found = _FEATURES.decode(features)
    except (ValueError, RecursionError):
        return []
    return [] if found is None else list(hashed_media(found.mm_hashes))


def _tokenize(headers: Headers, body: bytes) -> ParsedBody:
    """A server without a model name tokenizes with its own, so that none is asked for."""
    request = decode(_TOKENIZE, body, "tokenize")
    canvas = Canvas(headers)
    if request.messages is not None:
        canvas.messages(request.messages)
    elif request.prompt is not None:
        canvas.content(request.prompt)
    else:
        raise BadRequest(NO_TEXT)
    return request.parsed(canvas.prompt(request.tools), UsageFormat.NONE, model_required=False)


def _detokenize(headers: Headers, body: bytes) -> ParsedBody:
    request = decode(_DETOKENIZE, body, "detokenize", "tokens", NO_TOKENS)
    if request.tokens is None:
        raise BadRequest(NO_TOKENS)
    return request.parsed(Prompt(pack_token_ids(request.tokens)), UsageFormat.NONE, model_required=False)


def _score(headers: Headers, body: bytes) -> ParsedBody:
    """The two sides have had several names; whichever pair is there is read."""
    request = decode(_SCORE, body, "score")
    return _pair(
        headers,
        request,
        (request.text_1, request.data_1, request.queries),
        (request.text_2, request.data_2, request.documents, request.items),
    )


def _rerank(headers: Headers, body: bytes) -> ParsedBody:
    request = decode(_RERANK, body, "rerank")
    return _pair(headers, request, (request.query,), (request.documents,))


def _pair(headers: Headers, request: Common, left: tuple[msgspec.Raw, ...], right: tuple[msgspec.Raw, ...]) -> ParsedBody:
    canvas = Canvas(headers)
    for side in (left, right):
        raw = next((value for value in side if bytes(value) not in (b"", b"null")), None)
        if raw is None:
            raise BadRequest(NO_DOCUMENTS if isinstance(request, _Rerank) else NO_SCORE_INPUT)
        canvas.json(raw)
    return request.parsed(canvas.prompt(), UsageFormat.OPENAI)


APIS: Mapping[str, Read] = {
    "inference/v1/generate": _generate,
    "tokenize": _tokenize,
    "detokenize": _detokenize,
    "score": _score,
    "rerank": _rerank,
}


class VllmHttpParser:
    """The path of the reference's vllmhttp-parser, plus tokenizer calls, scoring and reranking."""

    type = "vllmhttp-parser"
    Parameters = NoParameters
    protocols: Sequence[str] = ("http",)
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
