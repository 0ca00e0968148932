"""vllmgrpc-parser: vLLM's gRPC API, package `vllm.grpc.engine`, service `VllmEngine`.

Field numbers are those of `vllm_engine.proto` as published in lightseekorg/smg (`crates/grpc_client/proto`), formerly in vLLM itself.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from picker.errors import BadRequest
from picker.grpc_frames import FrameError, only_message
from picker.parsing.fields import MAX_TOKENS
from picker.parsing.paths import SuffixTable
from picker.plugin import Handle, NoParameters
from picker.prompt import NO_PROMPT, Prompt
from picker.protobuf_wire import WireError, fields, message, number, packed_uint32, text
from picker.request import ParsedBody, UsageFormat

SERVICE = "vllm.grpc.engine.VllmEngine"
GENERATE, EMBED, OTHER = f"{SERVICE}/Generate", f"{SERVICE}/Embed", f"{SERVICE}/*"
NO_INPUT = "invalid generate request: must have tokenized or text field"
NO_EMBED_INPUT = "invalid embed request: must have tokenized field"

# GenerateRequest; EmbedRequest has `tokenized` at the same place.
_TOKENIZED, _TEXT, _SAMPLING, _STREAM = 2, 3, 4, 5
# TokenizedInput, SamplingParams.
_INPUT_IDS = 2
_MAX_TOKENS = 8

_UNREAD = ParsedBody(model_required=False, model_rewritable=False, skip_response=True)


class VllmGrpcParser:
    """`Generate` and `Embed` are read; other methods of the service are passed on, and their answers are nobody's business here.

    The API names no model: a server has one. Hence none is asked for, and none can be rewritten.
    """

    type = "vllmgrpc-parser"
    Parameters = NoParameters
    protocols: Sequence[str] = ("h2c",)
    paths: Sequence[str] = (GENERATE, EMBED, OTHER)

    def __init__(self, name: str, parameters: NoParameters, handle: Handle) -> None:
        self.name = name
        self._paths = SuffixTable((path, path) for path in self.paths)

    def parse(self, path: str, headers: Mapping[str, str], body: bytes) -> ParsedBody:
        """What the call asks for. Raises `BadRequest`."""
        method = self._paths.find(path)
        if method == OTHER:
            return _UNREAD
        if method is None:
            raise BadRequest(f"unsupported path for {self.type}: {path[:200]}")
        what = "generate" if method == GENERATE else "embed"
        try:
            data = only_message(body)
            return _generate(data) if method == GENERATE else _embed(data)
        except (FrameError, WireError) as error:
            raise BadRequest(f"invalid {what} request: {error}") from None


def _generate(data: bytes) -> ParsedBody:
    prompt: Prompt | None = None
    limit: int | None = None
    stream = False
    for field, value in fields(data):
        # `tokenized` and `text` are alternatives: the last one counts.
        if field == _TOKENIZED:
            prompt = _tokenized(message(value, "tokenized"))
        elif field == _TEXT:
            prompt = Prompt(text(value, "text").encode())
        elif field == _SAMPLING:
            limit = _max_tokens(message(value, "sampling_params"), limit)
        elif field == _STREAM:
            stream = number(value, "stream") != 0
    if prompt is None or not prompt.data:
        raise BadRequest(NO_INPUT)
    return ParsedBody(
        prompt=prompt,
        stream=stream,
        include_usage=True,
        max_output_tokens=limit,
        usage_format=UsageFormat.VLLM_GENERATE,
        model_required=False,
        model_rewritable=False,
    )


def _embed(data: bytes) -> ParsedBody:
    prompt = NO_PROMPT
    for field, value in fields(data):
        if field == _TOKENIZED:
            prompt = _tokenized(message(value, "tokenized"))
    if not prompt.data:
        raise BadRequest(NO_EMBED_INPUT)
    return ParsedBody(prompt=prompt, usage_format=UsageFormat.VLLM_EMBED, model_required=False, model_rewritable=False)


def _tokenized(data: bytes) -> Prompt:
    """Of a TokenizedInput only the ids: the text is there for people to read."""
    ids: list[bytes] = []
    for field, value in fields(data):
        if field == _INPUT_IDS:
            # Writers may pack repeated numbers or not, and readers take both.
            ids.append((value & 0xFFFF_FFFF).to_bytes(4, "little") if isinstance(value, int) else packed_uint32(value))
    return Prompt(b"".join(ids))


def _max_tokens(data: bytes, limit: int | None) -> int | None:
    for field, value in fields(data):
        if field == _MAX_TOKENS:
            limit = number(value, "sampling_params.max_tokens") & 0xFFFF_FFFF
            if limit > MAX_TOKENS:
                raise BadRequest(f"invalid generate request: sampling_params.max_tokens must be an integer from 0 to {MAX_TOKENS}")
    return limit
