"""The model's name out of a form."""

from __future__ import annotations

from collections.abc import Mapping

import pytest

from picker.parsing.multipart import form_field
from picker.request import ParsedBody
from tests.support.parsers import default_parsers

TYPE = "multipart/form-data; boundary=XX"
FILE = (
    b'--XX\r\nContent-Disposition: form-data; name="file"; filename="model"\r\nContent-Type: audio/wav\r\n\r\nRIFF\x00\xff\r\n\r\n--X\r\n'
)
MODEL = b'--XX\r\nContent-Disposition: form-data; name="model"\r\n\r\nwhisper\r\n'
END = b"--XX--\r\n"


def parse(path: str, headers: Mapping[str, str], body: bytes) -> ParsedBody:
    parser = default_parsers().find(path)
    assert parser is not None
    return parser.parse(path, headers, body)


@pytest.mark.parametrize(
    ("content_type", "body", "model"),
    [
        (TYPE, FILE + MODEL + END, "whisper"),
        (TYPE, MODEL + FILE + END, "whisper"),
        ('multipart/form-data; boundary="XX"; charset=utf-8', MODEL + END, "whisper"),
        (TYPE, MODEL.replace(b'"model"', b"model").replace(b"Content-D", b"content-d") + END, "whisper"),
        (TYPE, MODEL.replace(b"whisper", "\u00e9".encode()) + END, "\u00e9"),
        (TYPE, FILE + END, None),
        (TYPE, FILE.replace(b'name="file"', b'name="model"') + END, None),
        (TYPE, MODEL, None),
        (TYPE, MODEL.replace(b"whisper", b"") + END, None),
        (TYPE, MODEL.replace(b"whisper", b"\xff") + END, None),
        (TYPE, MODEL.replace(b"whisper", b"x" * 513) + END, None),
        (TYPE, FILE * 64 + MODEL + END, None),
        (TYPE, b"--XX\r\n" + b"a: b\r\n" * 2000 + b"\r\n" + MODEL + END, None),
        (TYPE, b"preamble" + MODEL + END, None),
        (TYPE, b"", None),
        ("multipart/form-data", MODEL + END, None),
    ],
)
def test_form_field(content_type: str, body: bytes, model: str | None) -> None:
    assert form_field(content_type, body, "model") == model


@pytest.mark.parametrize("path", ["/v1/audio/transcriptions", "/v1/audio/translations", "/v1/images/edits"])
def test_forms_are_passed_on(path: str) -> None:
    body = parse(path, {"content-type": TYPE}, FILE + MODEL + END)
    assert (body.model, body.model_required, body.model_rewritable, body.prompt.tokens) == ("whisper", False, False, 0)
    assert parse(path, {"content-type": TYPE}, b"\xff\x00").model is None


@pytest.mark.parametrize(("body", "model"), [(b'{"model":"tts","input":"hello"}', "tts"), (b"\xff", None), (b'{"model":1}', None)])
def test_speech(body: bytes, model: str | None) -> None:
    parsed = parse("/v1/audio/speech", {"content-type": "application/json"}, body)
    assert (parsed.model, parsed.model_required, parsed.model_rewritable) == (model, False, model is not None)
