"""One small text field out of a multipart form, without decoding the files in it (RFC 7578)."""

from __future__ import annotations

import re

_BOUNDARY = re.compile(r"""boundary=(?:"([^"]{1,70})"|([^\s;"]{1,70}))""", re.IGNORECASE)
_NAME = re.compile(rb"""[;\s]name=(?:"([^"\r\n]*)"|([^\s;"]+))""", re.IGNORECASE)
_FILENAME = re.compile(rb"[;\s]filename\*?=", re.IGNORECASE)
_MAX_PARTS = 64
_MAX_HEAD_BYTES = 4096
_MAX_VALUE_BYTES = 512


def form_field(content_type: str, body: bytes, name: str) -> str | None:
    """The value of form field `name`; None when it is missing, a file, too long, not UTF-8, or the form cannot be read."""
    match = _BOUNDARY.search(content_type)
    if match is None:
        return None
    delimiter = b"--" + (match[1] or match[2]).encode("utf-8", "replace")
    if not body.startswith(delimiter):
        return None
    wanted = name.encode()
    start = len(delimiter)
    delimiter = b"\r\n" + delimiter
    for _ in range(_MAX_PARTS):
        if not body.startswith(b"\r\n", start):
            return None
        # Searching from here on finds the end of a head without fields too.
        head_end = body.find(b"\r\n\r\n", start, start + _MAX_HEAD_BYTES)
        if head_end < 0:
            return None
        end = body.find(delimiter, head_end + 2)
        if end < 0:
            return None
        if _field_name(body[start:head_end]) == wanted:
            return _text(body[head_end + 4 : end])
        start = end + len(delimiter)
    return None


def _field_name(head: bytes) -> bytes | None:
    """The name that the part's Content-Disposition gives it, None for files and anything else."""
    for line in head.split(b"\r\n"):
        key, _, value = line.partition(b":")
        if key.strip().lower() == b"content-disposition" and not _FILENAME.search(value):
            match = _NAME.search(value)
            return (match[1] or match[2]) if match else None
    return None


def _text(value: bytes) -> str | None:
    if len(value) > _MAX_VALUE_BYTES:
        return None
    try:
        return value.decode() or None
    except UnicodeDecodeError:
        return None
