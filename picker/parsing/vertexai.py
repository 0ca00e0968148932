"""vertexai-parser: Vertex AI's prediction service over gRPC, which carries the JSON of OpenAI's API in a `google.api.HttpBody`.

Field numbers: googleapis, `google/cloud/aiplatform/v1/prediction_service.proto` and `google/api/httpbody.proto`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import msgspec
from msgspec.structs import replace

from picker.errors import BadRequest
from picker.grpc_frames import FrameError, only_message
from picker.parsing.openai import APIS
from picker.parsing.paths import SuffixTable
from picker.plugin import Handle, NoParameters
from picker.protobuf_wire import WireError, fields, message
from picker.request import ParsedBody

METHODS = ("ChatCompletions", "StreamRawPredict", "RawPredict")
SERVICES = ("google.cloud.aiplatform.v1.PredictionService", "google.cloud.aiplatform.v1beta1.PredictionService", "PredictionService")
NO_BODY = "invalid prediction request: must have http_body field with data"
UNKNOWN_API = "invalid prediction request: must have messages, prompt or input field"

# ChatCompletionsRequest, RawPredictRequest and StreamRawPredictRequest agree on it; HttpBody.
_HTTP_BODY = 2
_DATA = 2


class _Shape(msgspec.Struct, gc=False):
    messages: msgspec.Raw = msgspec.Raw()
    prompt: msgspec.Raw = msgspec.Raw()
    input: msgspec.Raw = msgspec.Raw()


_SHAPE = msgspec.json.Decoder(_Shape)


class VertexAIParser:
    """The body says which of OpenAI's APIs it is for: `messages` chat, `prompt` completions, `input` embeddings.

    The JSON is inside a message that is passed on as it came: its model cannot be rewritten.
    """

    type = "vertexai-parser"
    Parameters = NoParameters
    protocols: Sequence[str] = ("h2c",)
    paths: Sequence[str] = tuple(f"{service}/{method}" for service in SERVICES for method in METHODS)

    def __init__(self, name: str, parameters: NoParameters, handle: Handle) -> None:
        self.name = name
        self._methods = SuffixTable((path, path.rpartition("/")[2]) for path in self.paths)

    def parse(self, path: str, headers: Mapping[str, str], body: bytes) -> ParsedBody:
        """What the call asks for. Raises `BadRequest`."""
        method = self._methods.find(path)
        if method is None:
            raise BadRequest(f"unsupported path for {self.type}: {path[:200]}")
        try:
            data = _data(only_message(body))
        except (FrameError, WireError) as error:
            raise BadRequest(f"invalid prediction request: {error}") from None
        if not data:
            raise BadRequest(NO_BODY)
        api = "chat/completions" if method == "ChatCompletions" else _api(data)
        return replace(APIS[api](headers, data), model_rewritable=False)


def _data(request: bytes) -> bytes:
    data = b""
    for field, value in fields(request):
        if field == _HTTP_BODY:
            for inner, part in fields(message(value, "http_body")):
                if inner == _DATA:
                    data = message(part, "data")
    return data


def _api(data: bytes) -> str:
    try:
        shape = _SHAPE.decode(data)
    except (ValueError, RecursionError):
        return "chat/completions"  # which has the words for what is wrong with the JSON
    for field, api in ((shape.messages, "chat/completions"), (shape.prompt, "completions"), (shape.input, "embeddings")):
        if bytes(field):
            return api
    raise BadRequest(UNKNOWN_API)
