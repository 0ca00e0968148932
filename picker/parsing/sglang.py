"""sglanghttp-parser: SGLang's own HTTP API, generation from token ids."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from picker.errors import BadRequest
from picker.parsing.content import TokenId, pack_token_ids
from picker.parsing.fields import decode, token_limit
from picker.parsing.paths import SuffixTable
from picker.plugin import Handle, NoParameters
from picker.prompt import Prompt
from picker.request import ParsedBody, UsageFormat

GENERATE = "generate"
NO_INPUT_IDS = "invalid generate request: must have input_ids field"


class _Sampling(msgspec.Struct, gc=False):
    max_new_tokens: Any = None


class _Generate(msgspec.Struct, gc=False):
    model: Any = None
    stream: Any = None
    input_ids: list[TokenId] | None = None
    extra_key: str | None = None
    sampling_params: _Sampling | None = None


_GENERATE = msgspec.json.Decoder(_Generate)


class SglangHttpParser:
    """`generate` with one prompt in token ids; lists of prompts are refused. A server has one model, hence none is asked for."""

    type = "sglanghttp-parser"
    Parameters = NoParameters
    protocols: Sequence[str] = ("http",)
    paths: Sequence[str] = (GENERATE,)

    def __init__(self, name: str, parameters: NoParameters, handle: Handle) -> None:
        self.name = name
        self._paths = SuffixTable((path, path) for path in self.paths)

    def parse(self, path: str, headers: Mapping[str, str], body: bytes) -> ParsedBody:
        """What the body asks for. Raises `BadRequest`."""
        if self._paths.find(path) is None:
            raise BadRequest(f"unsupported path for {self.type}: {path[:200]}")
        request = decode(_GENERATE, body, "generate", "input_ids", NO_INPUT_IDS)
        if not request.input_ids:
            raise BadRequest(NO_INPUT_IDS)
        sampling = request.sampling_params
        model = request.model if isinstance(request.model, str) and request.model else None
        return ParsedBody(
            model=model,
            prompt=Prompt(pack_token_ids(request.input_ids)),
            stream=request.stream is True,
            include_usage=True,
            max_output_tokens=token_limit(sampling.max_new_tokens, "generate", "sampling_params.max_new_tokens") if sampling else None,
            cache_salt=request.extra_key or "",
            usage_format=UsageFormat.SGLANG,
            model_required=False,
            model_rewritable=model is not None,
        )
