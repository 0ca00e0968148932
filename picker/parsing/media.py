"""How many prompt tokens an image, a recording, a video or a file stands for.

Images: width x height / 1024, 640x360 when the size is not in the request (contract section 4.6). A video is frames x tokens per
frame. The other figures are ours: 25 audio tokens per second (one per 40 ms, common for Whisper-style encoders) and a flat figure
per attached file. Estimates only steer; the usage that the engine reports settles the account.
"""

from __future__ import annotations

import binascii
import re
from collections.abc import Iterator, Mapping, Sequence
from math import isfinite

from xxhash import xxh3_64_intdigest

from picker.prompt import Medium

IMAGE, AUDIO, VIDEO, FILE = "image", "audio", "video", "file"
KINDS = {
    **dict.fromkeys(("image_url", "input_image", "image"), IMAGE),
    **dict.fromkeys(("input_audio", "audio_url", "audio"), AUDIO),
    **dict.fromkeys(("video_url", "input_video", "video"), VIDEO),
    **dict.fromkeys(("input_file", "file", "document"), FILE),
}

PIXELS_PER_TOKEN = 1024
DEFAULT_SIZE = (640, 360)
AUDIO_TOKENS_PER_S = 25
DEFAULT_AUDIO_S = 30
DEFAULT_VIDEO_FPS = 1.0
DEFAULT_VIDEO_S = 10.0
FILE_TOKENS = 1024
# Ceilings, so that a forged size cannot charge more than a model would ever read.
MAX_IMAGE_TOKENS = 16_384
MAX_TOKENS = 131_072

_WAV_BYTES_PER_S = 32_000  # 16 kHz, 16 bits, one channel
_PACKED_BYTES_PER_S = 8_000  # 64 kbit/s
# What the medium is: its location or its data, in front of what only says how to look at it. No key comes later than this.
_IDENTITY = re.compile(rb'\s*"|.*?"(?:url|data|image_url|audio_url|video_url|file_data|file_id)"\s*:\s*"', re.DOTALL)
_KEY_BYTES = 512
MODALITIES = (IMAGE, AUDIO, VIDEO)
OTHER = "other"
_DATA_KEY = re.compile(rb'"data"\s*:\s*"')
_RESOLUTION = re.compile(r"(\d{1,5})[xX*](\d{1,5})")
_LINES = re.compile(r"(\d{1,5})[pP]?")
# A JPEG tells its size after its metadata; 64 KiB of base64 is past any usual thumbnail.
_HEAD_CHARS = 65_536


def media_tokens(kind: str, source: bytes, headers: Mapping[str, str]) -> int:
    """Prompt tokens of one medium. `source` is the JSON that names or holds it."""
    if kind == IMAGE:
        return frame_tokens(*(image_size(base64_head(source, _HEAD_CHARS)) or DEFAULT_SIZE))
    if kind == AUDIO:
        return _audio_tokens(source)
    return _video_tokens(headers) if kind == VIDEO else FILE_TOKENS


def media_digest(source: bytes) -> int:
    """64 bits of the location or the inline data that `source`, the JSON of a medium, holds; of all of it when it has neither.

    `detail`, a format and blanks do not count: to a model server's encoder it is the same picture. XXH3 takes 0.1 ms per MB or less.
    """
    match = _IDENTITY.match(source, 0, _KEY_BYTES)
    if match is not None:
        end = source.find(b'"', match.end())
        if end > match.end() and source[end - 1] != 0x5C:  # an escaped quote: not the end
            return xxh3_64_intdigest(memoryview(source)[match.end() : end])
    return xxh3_64_intdigest(source)


def hashed_media(hashes: Mapping[str, Sequence[str | None]] | None) -> Iterator[Medium]:
    """Media by the hashes (`mm_hashes`, by modality) that a vLLM gave them."""
    for modality, marks in (hashes or {}).items():
        for mark in marks:
            if mark:
                yield Medium(modality if modality in MODALITIES else OTHER, xxh3_64_intdigest(mark.encode("utf-8", "surrogatepass")))


def frame_tokens(width: int, height: int) -> int:
    """Tokens of one image of this many pixels, at least 1."""
    return min(max(width * height // PIXELS_PER_TOKEN, 1), MAX_IMAGE_TOKENS)


def base64_head(source: bytes, chars: int) -> bytes:
    """The first bytes of inline data, b"" when `source` only names a location."""
    start = _base64_start(source)
    if start < 0:
        return b""
    text = source[start : start + chars].replace(b"\\/", b"/")
    text = text.partition(b'"')[0].rstrip(b"=\\")
    try:
        return binascii.a2b_base64(text[: len(text) // 4 * 4])
    except binascii.Error:
        return b""


def image_size(head: bytes) -> tuple[int, int] | None:
    """Width and height in pixels from the start of a PNG, GIF, JPEG or WebP file."""
    if head.startswith(b"\x89PNG\r\n\x1a\n") and len(head) >= 24:
        return int.from_bytes(head[16:20], "big"), int.from_bytes(head[20:24], "big")
    if head[:6] in (b"GIF87a", b"GIF89a") and len(head) >= 10:
        return int.from_bytes(head[6:8], "little"), int.from_bytes(head[8:10], "little")
    if head.startswith(b"\xff\xd8"):
        return _jpeg_size(head)
    if head[:4] == b"RIFF" and head[8:12] == b"WEBP":
        return _webp_size(head)
    return None


def _base64_start(source: bytes) -> int:
    mark = source.find(b";base64,")
    if mark >= 0:
        return mark + len(b";base64,")
    match = _DATA_KEY.search(source)
    return match.end() if match else -1


def _jpeg_size(head: bytes) -> tuple[int, int] | None:
    """Segments are a marker and a big-endian length; the start-of-frame segment holds height, then width."""
    pos = 2
    while pos + 9 <= len(head) and head[pos] == 0xFF:
        marker = head[pos + 1]
        if 0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC):
            return int.from_bytes(head[pos + 7 : pos + 9], "big"), int.from_bytes(head[pos + 5 : pos + 7], "big")
        pos += 2 + max(int.from_bytes(head[pos + 2 : pos + 4], "big"), 2)
    return None


def _webp_size(head: bytes) -> tuple[int, int] | None:
    """Three layouts: lossy (14 bits each), lossless (14 bits minus one), extended (24 bits minus one)."""
    if len(head) < 30:
        return None
    if head[12:16] == b"VP8 ":
        return int.from_bytes(head[26:28], "little") & 0x3FFF, int.from_bytes(head[28:30], "little") & 0x3FFF
    if head[12:16] == b"VP8L":
        bits = int.from_bytes(head[21:25], "little")
        return (bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1
    if head[12:16] == b"VP8X":
        return int.from_bytes(head[24:27], "little") + 1, int.from_bytes(head[27:30], "little") + 1
    return None


def _audio_tokens(source: bytes) -> int:
    start = _base64_start(source)
    if start < 0:
        return DEFAULT_AUDIO_S * AUDIO_TOKENS_PER_S
    size = (max(source.find(b'"', start), start) - start) * 3 // 4
    per_s = _WAV_BYTES_PER_S if base64_head(source, 16).startswith(b"RIFF") else _PACKED_BYTES_PER_S
    return min(max(size * AUDIO_TOKENS_PER_S // per_s, 1), MAX_TOKENS)


def _video_tokens(headers: Mapping[str, str]) -> int:
    """Frames per second, seconds and resolution come from headers, since nothing is decoded here."""
    fps = _positive(headers.get("x-llm-d-video-fps"), DEFAULT_VIDEO_FPS)
    seconds = _positive(headers.get("x-llm-d-video-duration-seconds"), DEFAULT_VIDEO_S)
    size = _resolution(headers.get("x-llm-d-video-resolution", ""))
    return min(max(int(min(fps * seconds, MAX_TOKENS)), 1) * frame_tokens(*size), MAX_TOKENS)


def _positive(text: str | None, default: float) -> float:
    try:
        value = float(text or default)
    except ValueError:
        return default
    return value if value > 0 and isfinite(value) else default


def _resolution(text: str) -> tuple[int, int]:
    """`1280x720`, or `720p` for a picture of 16:9."""
    match = _RESOLUTION.fullmatch(text.strip())
    if match:
        return int(match[1]), int(match[2])
    match = _LINES.fullmatch(text.strip())
    return (int(match[1]) * 16 // 9, int(match[1])) if match else DEFAULT_SIZE
