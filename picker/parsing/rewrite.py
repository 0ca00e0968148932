"""Another model name in a request body, and nothing else changed."""

from __future__ import annotations

import msgspec

from picker.errors import BadRequest

_OBJECT = msgspec.json.Decoder(dict[str, msgspec.Raw])
_STRING = msgspec.json.Encoder()


def rewrite_model(body: bytes, model: str) -> bytes:
    """`body` with its top-level `model` set to `model`.

    Top-level keys come out sorted and without spaces between them, as the reference writes them; every other value keeps its
    bytes, so that nothing is lost that a decoder would normalise (large integers, key order, escapes).

    Raises `BadRequest` when the body is not a JSON object.
    """
    try:
        fields = _OBJECT.decode(body)
    except (ValueError, RecursionError) as error:
        raise BadRequest(f"cannot rewrite the model of this body: {error}") from None
    fields["model"] = msgspec.Raw(_STRING.encode(model))
    encode = _STRING.encode
    return b"{" + b",".join([b"%b:%b" % (encode(key), fields[key]) for key in sorted(fields)]) + b"}"
