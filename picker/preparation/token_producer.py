"""token-producer: what counts as the tokens of a prompt (contract section 4.6).

The estimate is what the parsers leave in any case (`picker.prompt`, `picker.parsing.media`). With a vLLM to ask, its token ids take the
place of the estimate: prompts are then matched and counted in real tokens.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Annotated, Any, ClassVar

import msgspec
from xxhash import xxh64_digest

from picker.errors import ParameterError
from picker.keys import TOKEN_PRODUCER, TOKENIZED_PROMPT
from picker.parsing.content import TokenId, pack_token_ids
from picker.parsing.media import hashed_media
from picker.parsing.paths import SuffixTable
from picker.parsing.rewrite import rewrite_model
from picker.plugin import Handle, Parameters
from picker.preparation.render_client import RenderClient
from picker.prompt import BYTES_PER_TOKEN, Prompt
from picker.request import InferenceRequest
from picker.units import parse_duration_s

log = logging.getLogger(__name__)

COMPLETIONS, CHAT = "/v1/completions/render", "/v1/chat/completions/render"
_ENDPOINTS = (("completions", COMPLETIONS), ("chat/completions", CHAT))
_FINGERPRINT_TOKENS = 2
DEFAULT_URL = "http://localhost:8000"


class EstimateParameters(Parameters, frozen=True):
    """Known to the reference. Here the figures are its defaults (`picker.parsing.media`) and cannot be set yet."""

    image: dict[str, Any] | None = None
    video: dict[str, Any] | None = None
    audio: dict[str, Any] | None = None


class VllmParameters(Parameters, frozen=True):
    """`timeout` is for text, `mmTimeout` for prompts with images, sound or video. `http` is the old name of `url`."""

    url: str = ""
    http: str = ""
    timeout: str = "5s"
    mm_timeout: str = "30s"


class TokenProducerParameters(Parameters, frozen=True):
    """Without `modelName` and `vllm`: the estimate."""

    model_name: str = ""
    vllm: VllmParameters | None = None
    estimate: EstimateParameters | None = None


class Placeholder(msgspec.Struct):
    """Where a medium stands among the tokens: the first, and how many."""

    offset: Annotated[int, msgspec.Meta(ge=0)]
    length: Annotated[int, msgspec.Meta(ge=0)]


class Features(msgspec.Struct):
    """Media by modality, in the order of the prompt."""

    mm_hashes: dict[str, list[str | None]] | None = None
    mm_placeholders: dict[str, list[Placeholder]] | None = None


class Rendered(msgspec.Struct):
    """One prompt as vLLM would run it."""

    token_ids: list[TokenId]
    features: Features | None = None


_MANY = msgspec.json.Decoder(list[Rendered])
_ONE = msgspec.json.Decoder(Rendered)


class TokenProducer:
    """The estimate; with `vllm`, the token ids that a vLLM's render endpoints give for completions and chat completions.

    Other paths keep the estimate, and so does a request for which the answer is late or wrong.
    """

    type = TOKEN_PRODUCER
    Parameters = TokenProducerParameters
    produces: ClassVar[frozenset[str]] = frozenset({TOKENIZED_PROMPT})
    consumes: ClassVar[frozenset[str]] = frozenset()

    def __init__(self, name: str, parameters: TokenProducerParameters, handle: Handle) -> None:
        """Raises ParameterError."""
        self.name = name
        self.asks = parameters.vllm is not None or bool(parameters.model_name)
        for medium in ("image", "video", "audio"):
            if getattr(parameters.estimate, medium, None):
                raise ParameterError(
                    f"estimate.{medium}", "the figures of the estimate cannot be set in this version; docs/plugins.md has them"
                )
        if self.asks and parameters.estimate is not None:
            raise ParameterError("estimate", "give vllm or estimate, not both")
        if self.asks and not parameters.model_name:
            raise ParameterError("modelName", "required for the vllm backend: the name under which the vLLM knows the model")
        vllm = parameters.vllm or VllmParameters()
        if vllm.http:
            if vllm.url:
                raise ParameterError("vllm.http", "give url or its old name http, not both")
            log.warning("%s: vllm.http is deprecated; use vllm.url", name)
        try:
            self._client = RenderClient(vllm.url or vllm.http or DEFAULT_URL)
        except ValueError as error:
            raise ParameterError("vllm.http" if vllm.http else "vllm.url", str(error)) from None
        self._model = parameters.model_name
        self._text_s = _duration_s("vllm.timeout", vllm.timeout)
        self._media_s = _duration_s("vllm.mmTimeout", vllm.mm_timeout)
        self.timeout_s = max(self._text_s, self._media_s)
        self._endpoints: SuffixTable[str] = SuffixTable(_ENDPOINTS)

    def wants(self, request: InferenceRequest) -> bool:
        """Whether there is somebody to ask about this request."""
        return bool(request.payload) and self._endpoints.find(request.path) is not None

    async def prepare(self, request: InferenceRequest) -> None:
        """Put real tokens in the place of the estimate. Raises ReadError, or msgspec.DecodeError for an answer of another shape."""
        path = self._endpoints.find(request.path)
        if path is None:
            return
        # The vLLM that renders need not know adapters and other names of the model: all share its tokenizer.
        body = rewrite_model(request.payload, self._model)
        timeout_s = self._media_s if request.body.prompt.extra_tokens else self._text_s
        answer = await self._client.post(path, body, timeout_s, authorization=request.headers.get("authorization", ""))
        prompts = [_ONE.decode(answer)] if path == CHAT else _MANY.decode(answer)
        # The renderer's hashes are of the pictures themselves, whatever location they were fetched from.
        media = [m for p in prompts if p.features for m in hashed_media(p.features.mm_hashes)] or request.body.prompt.media
        request.body = msgspec.structs.replace(request.body, prompt=Prompt(b"".join(map(packed, prompts)), media=media))

    async def close(self) -> None:
        """Give up the connections."""
        await self._client.close()


def packed(rendered: Rendered) -> bytes:
    """Token ids as the canonical prompt has them.

    All pictures of one size have the same placeholder tokens: the first two of each medium become a fingerprint of its hash, so that two
    pictures are two prefixes.
    """
    data = bytearray(pack_token_ids(rendered.token_ids))
    for offset, length, mark in _media(rendered.features):
        start = offset * BYTES_PER_TOKEN
        size = min(length, _FINGERPRINT_TOKENS) * BYTES_PER_TOKEN
        if start + size <= len(data):
            data[start : start + size] = xxh64_digest(mark.encode())[:size]
    return bytes(data)


def _media(features: Features | None) -> Sequence[tuple[int, int, str]]:
    """Offset, length and hash of each."""
    if features is None or not features.mm_hashes or not features.mm_placeholders:
        return ()
    return [
        (place.offset, place.length, mark)
        for modality, places in features.mm_placeholders.items()
        for place, mark in zip(places, features.mm_hashes.get(modality, ()), strict=False)
        if mark is not None
    ]


def _duration_s(path: str, text: str) -> float:
    try:
        seconds = parse_duration_s(text)
    except ValueError as error:
        raise ParameterError(path, str(error)) from None
    if seconds <= 0:
        raise ParameterError(path, f"'{text}': expected more than 0")
    return seconds
