"""Durations as Go writes them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from picker.units import parse_duration_s


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("0", 0.0),
        ("0s", 0.0),
        ("1ns", 1e-9),
        ("5us", 5e-6),
        ("5\u00b5s", 5e-6),
        ("5\u03bcs", 5e-6),
        ("200ms", 0.2),
        ("1.5s", 1.5),
        (".5s", 0.5),
        ("2.s", 2.0),
        ("1m", 60.0),
        ("1m30s", 90.0),
        ("1h2m3.5s", 3723.5),
        ("1000000h", 3.6e9),
    ],
)
def test_durations(text: str, seconds: float) -> None:
    assert parse_duration_s(text) == pytest.approx(seconds)


@pytest.mark.parametrize(
    "text", ["", "5", "1.5", "s", ".s", "-5s", "5 s", "5S", "5d", "1m 30s", "5s!", "ms5", "1e3s", "infs", "1..5s", "00"]
)
def test_what_is_not_a_duration(text: str) -> None:
    with pytest.raises(ValueError, match=r"is not a duration; expected e\.g\. 200ms, 5s or 1m30s") as error:
        parse_duration_s(text)
    assert str(error.value).startswith(f"'{text}'")


@given(hours=st.integers(0, 99), minutes=st.integers(0, 59), ms=st.integers(0, 59_999))
def test_parts_add_up(hours: int, minutes: int, ms: int) -> None:
    assert parse_duration_s(f"{hours}h{minutes}m{ms}ms") == pytest.approx(hours * 3600 + minutes * 60 + ms / 1000)
