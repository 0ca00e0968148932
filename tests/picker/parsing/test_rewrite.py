"""Another model name, everything else byte for byte."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from picker.errors import BadRequest
from picker.parsing.rewrite import rewrite_model


@pytest.mark.parametrize(
    ("body", "model", "expected"),
    [
        (
            b'{"model": "a", "prompt": "p", "max_tokens": 100, "temperature": 0}',
            "b",
            b'{"max_tokens":100,"model":"b","prompt":"p","temperature":0}',
        ),
        (b'{"prompt": [ 1, 2 ], "x": {"z": 1.0, "a" : 1e400}}', "b", b'{"model":"b","prompt":[ 1, 2 ],"x":{"z": 1.0, "a" : 1e400}}'),
        (b'{"model":1}', 'q"\\', b'{"model":"q\\"\\\\"}'),
        (b'{"model":"a","messages":[{"model":"a"}],"model":"c"}', "b", b'{"messages":[{"model":"a"}],"model":"b"}'),
        (
            b'{"n":123456789012345678901234567890,"s":"\\u0041\\/<"}',
            "b",
            b'{"model":"b","n":123456789012345678901234567890,"s":"\\u0041\\/<"}',
        ),
        (b"{}", "\u00e9", '{"model":"\u00e9"}'.encode()),
    ],
)
def test_rewrite(body: bytes, model: str, expected: bytes) -> None:
    assert rewrite_model(body, model) == expected


@pytest.mark.parametrize("body", [b"", b"[]", b"null", b"{", b'{"a":' + b"[" * 100_000, b'{"\xff":1}'])
def test_not_an_object(body: bytes) -> None:
    with pytest.raises(BadRequest):
        rewrite_model(body, "b")


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(), lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner), max_leaves=8
)


@given(st.dictionaries(st.text(), JSON), st.text())
def test_only_the_model_changes(fields: dict[str, object], model: str) -> None:
    assert json.loads(rewrite_model(json.dumps(fields).encode(), model)) == {**fields, "model": model}
