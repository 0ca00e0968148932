"""What is wrong with a body that is not a JSON object, in the words of Go's encoding/json.

Clients and tests of the reference picker know these texts. This runs on the error path only: the decoder has already refused the
body, so the scan may be plain, but it must be linear, must not recurse, and must end soon whatever the body holds.
"""

from __future__ import annotations

import re

PREFIX = "error unmarshaling request bodyMap: "
TRUNCATED = "unexpected end of JSON input"

_MAX_DEPTH = 10_000  # as in Go
# About 50 ms of one core. A longer body whose error lies deeper gets the decoder's own text instead.
_MAX_STEPS = 100_000

_SPACE = re.compile(rb"[ \t\r\n]*+")
_DIGITS = re.compile(rb"[0-9]*+")
# Possessive, since a backtracking repeat remembers every escape of a string of 100 MB.
_STRING = re.compile(rb'"(?:[^"\\\x00-\x1f]++|\\["\\/bfnrt]|\\u[0-9a-fA-F]{4})*+')
_LITERALS = {ord("t"): b"true", ord("f"): b"false", ord("n"): b"null"}
_KINDS = {ord("["): "array", ord('"'): "string", ord("t"): "bool", ord("f"): "bool"}

# What may come next.
_VALUE, _VALUE_OR_CLOSE, _KEY, _KEY_OR_CLOSE, _COLON, _AFTER = range(6)


class _InvalidError(Exception):
    """Carries the text."""


def explain(body: bytes) -> str | None:
    """The text for `body`, without `PREFIX`; None when it is an object or null, or too long to tell."""
    try:
        if not _scan(body):
            return None
    except _InvalidError as error:
        return str(error)
    first = body[_end(_SPACE, body, 0)]
    if first in b"{n":
        return None
    return f"json: cannot unmarshal {_KINDS.get(first, 'number')} into Go value of type map[string]interface {{}}"


def quote_char(byte: int) -> str:
    """One byte, taken as a code point, in single quotes as Go writes it."""
    if byte == 0x27:
        return "'\\''"
    if byte == 0x22:
        return "'\"'"
    escape = _ESCAPES.get(byte)
    if escape is None:
        if byte < 0x20 or byte == 0x7F:
            escape = f"\\x{byte:02x}"
        elif 0x80 <= byte <= 0xA0 or byte == 0xAD:
            escape = f"\\u{byte:04x}"
        else:
            escape = chr(byte)
    return f"'{escape}'"


_ESCAPES = {7: "\\a", 8: "\\b", 9: "\\t", 10: "\\n", 11: "\\v", 12: "\\f", 13: "\\r", 0x5C: "\\\\"}


def _end(pattern: re.Pattern[bytes], body: bytes, pos: int) -> int:
    """Where a pattern that always matches stops."""
    match = pattern.match(body, pos)
    return match.end() if match is not None else pos


def _fail(body: bytes, pos: int, context: str) -> _InvalidError:
    """The complaint about the byte at `pos`. Go takes the end of the input for a space, which no unfinished token but a string allows."""
    char = body[pos] if pos < len(body) else 0x20
    return _InvalidError(f"invalid character {quote_char(char)} {context}")


def _scan(body: bytes) -> bool:
    """True when `body` is one JSON value, False when the step budget ran out first. Raises `_InvalidError`."""
    stack = bytearray()
    expect = _VALUE
    pos = 0
    for _ in range(_MAX_STEPS):
        pos = _end(_SPACE, body, pos)
        if pos == len(body):
            if expect == _AFTER and not stack:
                return True
            raise _InvalidError(TRUNCATED)
        char = body[pos]
        if expect == _AFTER:
            expect = _after_value(body, pos, stack)
            pos += 1
        elif expect == _COLON:
            if char != 0x3A:
                raise _fail(body, pos, "after object key")
            expect = _VALUE
            pos += 1
        elif (char == 0x7D and expect == _KEY_OR_CLOSE) or (char == 0x5D and expect == _VALUE_OR_CLOSE):
            stack.pop()
            expect = _AFTER
            pos += 1
        elif expect in (_KEY, _KEY_OR_CLOSE):
            if char != 0x22:
                raise _fail(body, pos, "looking for beginning of object key string")
            pos = _string(body, pos)
            expect = _COLON
        elif char in b"{[":
            stack.append(char)
            if len(stack) > _MAX_DEPTH:
                raise _fail(body, pos, "exceeded max depth")
            expect = _KEY_OR_CLOSE if char == 0x7B else _VALUE_OR_CLOSE
            pos += 1
        else:
            pos = _scalar(body, pos)
            expect = _AFTER
    return False


def _after_value(body: bytes, pos: int, stack: bytearray) -> int:
    """What comes after the comma or bracket that follows a value."""
    char = body[pos]
    if not stack:
        raise _fail(body, pos, "after top-level value")
    in_object = stack[-1] == 0x7B
    if char == 0x2C:
        return _KEY if in_object else _VALUE
    if char != (0x7D if in_object else 0x5D):
        raise _fail(body, pos, "after object key:value pair" if in_object else "after array element")
    stack.pop()
    return _AFTER


def _scalar(body: bytes, pos: int) -> int:
    """The end of the string, number or literal at `pos`."""
    char = body[pos]
    if char == 0x22:
        return _string(body, pos)
    literal = _LITERALS.get(char)
    if literal is not None:
        for offset, expected in enumerate(literal):
            if body[pos + offset : pos + offset + 1] != bytes((expected,)):
                raise _fail(body, pos + offset, f"in literal {literal.decode()} (expecting {quote_char(expected)})")
        return pos + len(literal)
    if char == 0x2D or 0x30 <= char <= 0x39:
        return _number(body, pos)
    raise _fail(body, pos, "looking for beginning of value")


def _string(body: bytes, pos: int) -> int:
    """The end of the string that opens at `pos`."""
    end = _end(_STRING, body, pos)
    stop = body[end : end + 1]
    if stop == b'"':
        return end + 1
    if not stop:
        raise _InvalidError(TRUNCATED)
    if stop != b"\\":
        raise _fail(body, end, "in string literal")
    if body[end + 1 : end + 2] != b"u":
        raise _fail(body, end + 1, "in string escape code")
    end += 2
    while body[end : end + 1] in _HEX:
        end += 1
    raise _fail(body, end, "in \\u hexadecimal character escape")


_HEX = frozenset(bytes((digit,)) for digit in b"0123456789abcdefABCDEF")


def _number(body: bytes, pos: int) -> int:
    """The end of the number at `pos`. A leading zero ends the integer part, whatever follows."""
    if body[pos] == 0x2D:
        pos += 1
    if body[pos : pos + 1] == b"0":
        pos += 1
    else:
        pos = _digits(body, pos, "in numeric literal")
    if body[pos : pos + 1] == b".":
        pos = _digits(body, pos + 1, "after decimal point in numeric literal")
    if body[pos : pos + 1] in (b"e", b"E"):
        pos += 1
        if body[pos : pos + 1] in (b"+", b"-"):
            pos += 1
        pos = _digits(body, pos, "in exponent of numeric literal")
    return pos


def _digits(body: bytes, pos: int, context: str) -> int:
    """The end of a run of at least one digit."""
    end = _end(_DIGITS, body, pos)
    if end == pos:
        raise _fail(body, pos, context)
    return end
