"""Texts for invalid JSON. The table was checked against encoding/json of Go 1.26."""

from __future__ import annotations

import time

import pytest

from picker.parsing.json_errors import explain

GO = [
    (b"no healthy upstream", "invalid character 'o' in literal null (expecting 'u')"),
    (b"", "unexpected end of JSON input"),
    (b" \n\t", "unexpected end of JSON input"),
    (b'{"a" 1}', "invalid character '1' after object key"),
    (b'{"a":1} x', "invalid character 'x' after top-level value"),
    (b"{}{}", "invalid character '{' after top-level value"),
    (b"[]", "json: cannot unmarshal array into Go value of type map[string]interface {}"),
    (b"[1, 2]", "json: cannot unmarshal array into Go value of type map[string]interface {}"),
    (b'"text"', "json: cannot unmarshal string into Go value of type map[string]interface {}"),
    (b"12", "json: cannot unmarshal number into Go value of type map[string]interface {}"),
    (b"-0.5e3", "json: cannot unmarshal number into Go value of type map[string]interface {}"),
    (b"true", "json: cannot unmarshal bool into Go value of type map[string]interface {}"),
    (b"false", "json: cannot unmarshal bool into Go value of type map[string]interface {}"),
    (b"null", None),
    (b" null ", None),
    (b"nul", "invalid character ' ' in literal null (expecting 'l')"),
    (b"nulL", "invalid character 'L' in literal null (expecting 'l')"),
    (b"tru", "invalid character ' ' in literal true (expecting 'e')"),
    (b"trux", "invalid character 'x' in literal true (expecting 'e')"),
    (b"falsy", "invalid character 'y' in literal false (expecting 'e')"),
    (b"{", "unexpected end of JSON input"),
    (b'{"a"', "unexpected end of JSON input"),
    (b'{"a":', "unexpected end of JSON input"),
    (b'{"a":1', "unexpected end of JSON input"),
    (b'{"a":1,', "unexpected end of JSON input"),
    (b'{"a":1,}', "invalid character '}' looking for beginning of object key string"),
    (b"{,}", "invalid character ',' looking for beginning of object key string"),
    (b"{a:1}", "invalid character 'a' looking for beginning of object key string"),
    (b"{'a':1}", "invalid character '\\'' looking for beginning of object key string"),
    (b'{"a":}', "invalid character '}' looking for beginning of value"),
    (b'{"a":1 "b":2}', "invalid character '\"' after object key:value pair"),
    (b'{"a":1]', "invalid character ']' after object key:value pair"),
    (b"[1 2]", "invalid character '2' after array element"),
    (b"[1,]", "invalid character ']' looking for beginning of value"),
    (b"[}", "invalid character '}' looking for beginning of value"),
    (b"[1}", "invalid character '}' after array element"),
    (b"{]", "invalid character ']' looking for beginning of object key string"),
    (b'{"a":"x', "unexpected end of JSON input"),
    (b'{"a":"\\', "invalid character ' ' in string escape code"),
    (b'{"a":"\\q"}', "invalid character 'q' in string escape code"),
    (b'{"a":"\\u12g4"}', "invalid character 'g' in \\u hexadecimal character escape"),
    (b'{"a":"\\u12', "invalid character ' ' in \\u hexadecimal character escape"),
    (b'{"a":"\x01"}', "invalid character '\\x01' in string literal"),
    (b'{"a":"line\nbreak"}', "invalid character '\\n' in string literal"),
    (b'{"a":-}', "invalid character '}' in numeric literal"),
    (b'{"a":-x}', "invalid character 'x' in numeric literal"),
    (b'{"a":01}', "invalid character '1' after object key:value pair"),
    (b'{"a":1.}', "invalid character '}' after decimal point in numeric literal"),
    (b'{"a":1.e3}', "invalid character 'e' after decimal point in numeric literal"),
    (b'{"a":1e}', "invalid character '}' in exponent of numeric literal"),
    (b'{"a":1e+}', "invalid character '}' in exponent of numeric literal"),
    (b'{"a":1ex}', "invalid character 'x' in exponent of numeric literal"),
    (b'{"a":+1}', "invalid character '+' looking for beginning of value"),
    (b'{"a":.5}', "invalid character '.' looking for beginning of value"),
    (b'{"a":NaN}', "invalid character 'N' looking for beginning of value"),
    (b'{"a":Infinity}', "invalid character 'I' looking for beginning of value"),
    (b"-", "invalid character ' ' in numeric literal"),
    (b"1.", "invalid character ' ' after decimal point in numeric literal"),
    (b"\xef\xbb\xbf{}", "invalid character 'ï' looking for beginning of value"),
    (b"\xff", "invalid character 'ÿ' looking for beginning of value"),
    (b"\x80", "invalid character '\\u0080' looking for beginning of value"),
    (b"\xa0", "invalid character '\\u00a0' looking for beginning of value"),
    (b"\xad", "invalid character '\\u00ad' looking for beginning of value"),
    (b"\x00", "invalid character '\\x00' looking for beginning of value"),
    (b"\x7f", "invalid character '\\x7f' looking for beginning of value"),
    (b"\x1f\x8b", "invalid character '\\x1f' looking for beginning of value"),
    (b"\x07", "invalid character '\\a' looking for beginning of value"),
    (b"'", "invalid character '\\'' looking for beginning of value"),
    (b"\\", "invalid character '\\\\' looking for beginning of value"),
    (b'{"a":1}\xc3\xa9', "invalid character 'Ã' after top-level value"),
    (b"}", "invalid character '}' looking for beginning of value"),
    (b":", "invalid character ':' looking for beginning of value"),
    (b'{"a"::1}', "invalid character ':' looking for beginning of value"),
    (b"{1:2}", "invalid character '1' looking for beginning of object key string"),
    (b'{"a":1}\r\n\t ', None),
    (b"<html>", "invalid character '<' looking for beginning of value"),
    (b"--boundary\r\n", "invalid character '-' in numeric literal"),
]


@pytest.mark.parametrize(("body", "text"), GO)
def test_same_words_as_go(body: bytes, text: str | None) -> None:
    assert explain(body) == text


@pytest.mark.parametrize(
    ("depth", "text"),
    [(9_999, "unexpected end of JSON input"), (10_000, "invalid character '[' exceeded max depth")],
)
def test_depth_limit_counts_the_outermost_object(depth: int, text: str) -> None:
    assert explain(b'{"a":' + b"[" * depth) == text


@pytest.mark.parametrize(
    ("body", "text"),
    [
        (b'{"a":"' + b"x" * 20_000_000, "unexpected end of JSON input"),
        (b'{"a":"' + b"\\n" * 5_000_000 + b"\x01", "invalid character '\\x01' in string literal"),
        (b"[" * 20_000_000, "invalid character '[' exceeded max depth"),
        (b" " * 20_000_000, "unexpected end of JSON input"),
        (b"1" * 20_000_000 + b"x", "invalid character 'x' after top-level value"),
        (b"[" + b"0," * 10_000_000, None),
    ],
    ids=["string", "escapes", "depth", "space", "digits", "too many values to tell"],
)
def test_huge_bodies_end_soon(body: bytes, text: str | None) -> None:
    started = time.process_time()
    assert explain(body) == text
    assert time.process_time() - started < 5
