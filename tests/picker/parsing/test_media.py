"""Media in prompts: estimated, told apart, and never counted as text."""

from __future__ import annotations

import base64
import json
import struct
from collections.abc import Mapping
from typing import Any

import pytest

from picker.errors import BadRequest
from picker.parsing.media import AUDIO, IMAGE, MAX_IMAGE_TOKENS, MAX_TOKENS, VIDEO, image_size, media_digest, media_tokens
from picker.prompt import Prompt
from picker.request import ParsedBody
from tests.support.parsers import default_parsers

DEFAULT = 640 * 360 // 1024
PNG = b"\x89PNG\r\n\x1a\n" + b"\0\0\0\rIHDR" + struct.pack(">II", 1024, 512) + b"\x08\x02\0\0\0"
GIF = b"GIF89a" + struct.pack("<HH", 320, 200) + b"\0" * 9
JPEG = b"\xff\xd8\xff\xe0" + struct.pack(">H", 500) + b"\0" * 498 + b"\xff\xc2" + struct.pack(">HBHH", 17, 8, 480, 640) + b"\0" * 20
WEBP_LOSSY = b"RIFF\0\0\0\0WEBPVP8 \0\0\0\0\0\0\0\x9d\x01\x2a" + struct.pack("<HH", 300, 100)
WEBP_LOSSLESS = b"RIFF\0\0\0\0WEBPVP8L\0\0\0\0\x2f" + struct.pack("<I", 299 | 99 << 14) + b"\0" * 8
WEBP_EXTENDED = b"RIFF\0\0\0\0WEBPVP8X\0\0\0\0\0\0\0\0" + (299).to_bytes(3, "little") + (99).to_bytes(3, "little")


def parse(path: str, headers: Mapping[str, str], body: bytes) -> ParsedBody:
    parser = default_parsers().find(path)
    assert parser is not None
    return parser.parse(path, headers, body)


def data_url(kind: str, data: bytes) -> str:
    return f"data:{kind};base64,{base64.b64encode(data).decode()}"


def chat_prompt(*parts: dict[str, Any], **headers: str) -> Prompt:
    body = json.dumps({"model": "m", "messages": [{"role": "user", "content": parts}]}).encode()
    return parse("/v1/chat/completions", {f"x-llm-d-video-{name}": value for name, value in headers.items()}, body).prompt


@pytest.mark.parametrize(
    ("head", "size"),
    [
        (PNG, (1024, 512)),
        (GIF, (320, 200)),
        (JPEG, (640, 480)),
        (WEBP_LOSSY, (300, 100)),
        (WEBP_LOSSLESS, (300, 100)),
        (WEBP_EXTENDED, (300, 100)),
        (b"", None),
        (b"\xff\xd8\xff", None),
        (b"\xff\xd8" + b"\xff\xe0\0\0" * 50, None),
        (PNG[:20], None),
        (WEBP_LOSSY[:29], None),
        (b"BM" + b"\0" * 40, None),
    ],
)
def test_image_size(head: bytes, size: tuple[int, int] | None) -> None:
    assert image_size(head) == size


@pytest.mark.parametrize(
    ("part", "tokens"),
    [
        ({"type": "image_url", "image_url": {"url": "https://host/a.png"}}, DEFAULT),
        ({"type": "image_url", "image_url": "https://host/a.png"}, DEFAULT),
        ({"type": "image_url", "image_url": {"url": data_url("image/png", PNG + b"x" * 300_000)}}, 512),
        ({"type": "image_url", "image_url": {"url": data_url("image/jpeg", JPEG)}}, 300),
        ({"type": "image_url", "image_url": {"url": "data:image/png;base64,!!!"}}, DEFAULT),
        ({"type": "image_url"}, DEFAULT),
        ({"type": "input_audio", "input_audio": {"data": base64.b64encode(b"RIFF" + b"\0" * 319_996).decode(), "format": "wav"}}, 250),
        ({"type": "audio_url", "audio_url": {"url": "https://host/a.mp3"}}, 750),
        ({"type": "video_url", "video_url": {"url": "https://host/a.mp4"}}, 10 * DEFAULT),
        ({"type": "file", "file": {"file_data": data_url("application/pdf", b"%PDF" + b"x" * 100_000)}}, 1024),
    ],
)
def test_a_medium_is_worth_its_estimate(part: dict[str, Any], tokens: int) -> None:
    prompt = chat_prompt(part)
    assert prompt.tokens == tokens + 1  # the role
    assert len(prompt.data) == len("user") + 8


@pytest.mark.parametrize(
    ("headers", "tokens"),
    [
        ({"fps": "2", "duration-seconds": "3", "resolution": "1024x1024"}, 6 * 1024),
        ({"fps": "0.1", "duration-seconds": "1"}, DEFAULT),
        ({"fps": "nan", "duration-seconds": "-4", "resolution": "huge"}, 10 * DEFAULT),
        ({"fps": "inf"}, 10 * DEFAULT),
        ({"resolution": "720p"}, 10 * (1280 * 720 // 1024)),
        ({"fps": "1e300", "duration-seconds": "1e300"}, MAX_TOKENS),
        ({"resolution": "99999x99999"}, MAX_TOKENS),
    ],
)
def test_video_headers(headers: dict[str, str], tokens: int) -> None:
    assert media_tokens(VIDEO, b"", {f"x-llm-d-video-{name}": value for name, value in headers.items()}) == tokens


def test_a_forged_size_is_capped() -> None:
    forged = PNG[:16] + b"\xff" * 8
    assert media_tokens(IMAGE, json.dumps({"url": data_url("image/png", forged)}).encode(), {}) == MAX_IMAGE_TOKENS
    assert media_tokens(AUDIO, b'{"data":"' + b"A" * 100_000_000 + b'"}', {}) == MAX_TOKENS


def test_two_pictures_are_two_prefixes() -> None:
    one, other = ({"type": "image_url", "image_url": {"url": f"https://host/{name}.png"}} for name in "ab")
    assert chat_prompt(one).data == chat_prompt(one).data != chat_prompt(other).data


def test_the_same_medium_has_the_same_digest_however_it_is_written() -> None:
    def digests(*parts: dict[str, Any]) -> list[Any]:
        return [medium.digest for medium in chat_prompt(*parts).media]

    def image(**source: str) -> dict[str, Any]:
        return {"type": "image_url", "image_url": source}

    url = data_url("image/png", PNG + b"x" * 2000)
    plain, text, low, before = digests(
        image(url=url), {"type": "image_url", "image_url": url}, image(url=url, detail="low"), image(detail="low", url=url)
    )
    assert plain == text == low == before
    (other,) = digests(image(url=data_url("image/png", PNG + b"x" * 1999 + b"y")))
    assert other != plain
    one, two = digests(image(url='https://host/?q="1"'), image(url='https://host/?q="2"'))
    assert one != two, "an escaped quote does not end it"
    nothing, empty = digests(image(detail="low"), image(url=""))
    assert nothing != empty
    picture = {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": "iVBORw0KGgo="}}
    prompt = parse("/v1/messages", {}, json.dumps({"messages": [{"role": "user", "content": [picture]}]}).encode()).prompt
    assert [(m.modality, m.digest) for m in prompt.media] == [(IMAGE, media_digest(b'"iVBORw0KGgo="'))]


def test_which_media_a_prompt_has() -> None:
    sound = {"type": "input_audio", "input_audio": {"data": "UklGRg==", "format": "wav"}}
    film = {"type": "video_url", "video_url": {"url": "https://host/a.mp4"}}
    document = {"type": "file", "file": {"file_data": data_url("application/pdf", b"%PDF")}}
    prompt = chat_prompt(sound, {"type": "text", "text": "hear"}, film, film, document, {"type": "image_url"})
    assert [m.modality for m in prompt.media] == [AUDIO, VIDEO, VIDEO], "no documents, and nothing that is not there"
    prompt.forget()
    assert not prompt.media


@pytest.mark.parametrize(
    ("features", "modalities"),
    [
        ({"mm_hashes": {"image": ["a", None, "b"], "scent": ["c"]}}, ["image", "image", "other"]),
        ({"mm_hashes": None}, []),
        (None, []),
        ({"mm_hashes": ["a"]}, []),
        ("none", []),
    ],
)
def test_media_of_generate_by_their_hashes(features: Any, modalities: list[str]) -> None:
    body = json.dumps({"model": "m", "token_ids": [1, 2], "features": features}).encode()
    media = parse("/inference/v1/generate", {}, body).prompt.media
    assert [m.modality for m in media] == modalities
    assert len({m.digest for m in media}) == len(media)


def test_responses_and_messages_do_not_count_base64_as_text() -> None:
    data = base64.b64encode(PNG + b"x" * 50_000).decode()
    url = f"data:image/png;base64,{data}"
    items = [{"role": "user", "content": [{"type": "input_text", "text": "look"}, {"type": "input_image", "image_url": url}]}]
    prompt = parse("/v1/responses", {}, json.dumps({"input": items}).encode()).prompt
    assert 512 <= prompt.tokens < 530
    picture = {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": data}}
    for content in ([picture], [{"type": "tool_result", "content": [picture]}]):
        prompt = parse("/v1/messages", {}, json.dumps({"messages": [{"role": "user", "content": content}]}).encode()).prompt
        assert 512 <= prompt.tokens < 530


def test_a_document_of_text_is_text() -> None:
    part = {"type": "document", "source": {"type": "text", "media_type": "text/plain", "data": "word " * 400}}
    prompt = parse("/v1/messages", {}, json.dumps({"messages": [{"role": "user", "content": [part]}]}).encode()).prompt
    assert prompt.tokens > 500 and prompt.extra_tokens == 0


def test_json_that_only_decodes_unread() -> None:
    with pytest.raises(BadRequest, match="invalid content"):
        parse("/v1/responses", {}, b'{"input":[{"a":"base64 \xff"}]}')
