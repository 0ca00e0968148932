"""Fields that several request bodies share, and how a body is decoded.

Only the fields named here and in the API modules become Python objects; the decoder checks the syntax of everything else and
skips it, which is most of the speed (10 µs in place of 27 for a chat of 24 KB).
"""

from __future__ import annotations

import re
from typing import Any, TypeVar

import msgspec

from picker.errors import BadRequest
from picker.parsing import json_errors
from picker.prompt import Prompt
from picker.request import ParsedBody, UsageFormat

T = TypeVar("T")

MAX_TOKENS = 2**31 - 1
ABSENT = msgspec.Raw()
_LONE_SURROGATE = re.compile(rb"\\u[dD][89a-fA-F]")


class Common(msgspec.Struct, gc=False):
    """What every inference body may say. `Any` where a wrong type is answered elsewhere or does not matter to the choice."""

    model: Any = None
    stream: Any = None
    stream_options: Any = None
    cache_salt: str | None = None

    @property
    def model_name(self) -> str | None:
        """The model, or None when it is missing, empty or not a string; the director has the words for that."""
        return self.model if isinstance(self.model, str) and self.model else None

    @property
    def include_usage(self) -> bool:
        """Whether a stream ends with a usage event because the client asked for one."""
        options = self.stream_options
        return isinstance(options, dict) and options.get("include_usage") is True

    def parsed(
        self, prompt: Prompt, usage: UsageFormat, limit: int | None = None, *, model_required: bool = True, model_insertable: bool = True
    ) -> ParsedBody:
        """The answer of a parser, with what only the API's own module knows. `limit` is in output tokens.

        `model_insertable`: the API has a place for a model, so that a body without one may be given one.
        """
        return ParsedBody(
            model=self.model_name,
            prompt=prompt,
            stream=self.stream is True,
            include_usage=self.include_usage,
            max_output_tokens=limit,
            cache_salt=self.cache_salt or "",
            usage_format=usage,
            model_required=model_required,
            model_rewritable=model_insertable or self.model_name is not None,
        )


def decode(decoder: msgspec.json.Decoder[T], body: bytes, what: str, required: str = "", missing: str = "") -> T:
    """`body` decoded, or `BadRequest`.

    `what` names the kind of request in messages. A `required` field of a wrong type is answered with `missing`, like its absence.
    """
    try:
        return decoder.decode(body)
    except (ValueError, RecursionError) as error:
        text = json_errors.explain(body)
        if text is None and body.strip(b" \t\r\n") == b"null":
            return decoder.decode(b"{}")  # to Go's decoder null is an empty map
        raise _refusal(error, text, body, what, required, missing) from None


def _refusal(error: Exception, text: str | None, body: bytes, what: str, required: str, missing: str) -> BadRequest:
    """Syntax goes before types, as in a decoder that reads the whole body first."""
    if text is not None:
        return BadRequest(json_errors.PREFIX + text)
    if isinstance(error, RecursionError):
        return BadRequest(json_errors.PREFIX + "JSON is nested too deeply")
    if isinstance(error, msgspec.ValidationError):
        if required and str(error).endswith(f"`$.{required}`"):
            return BadRequest(missing)
        return BadRequest(f"invalid {what} request: {error}")
    if not isinstance(error, UnicodeError) and _LONE_SURROGATE.search(body):
        return BadRequest(f"{json_errors.PREFIX}a \\u escape is half of a surrogate pair")
    return BadRequest(f"{json_errors.PREFIX}{error}")


def token_limit(value: object, what: str, name: str) -> int | None:
    """A limit on output tokens: None when null, an integer (or integral float, which JSON does not tell apart) otherwise."""
    if value is None:
        return None
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if type(value) is not int or not 0 <= value <= MAX_TOKENS:
        raise BadRequest(f"invalid {what} request: {name} must be an integer from 0 to {MAX_TOKENS}")
    return value
