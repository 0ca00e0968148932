"""What plugins may set on a request."""

from __future__ import annotations

import pytest

from picker.keys import CONTROL
from picker.request import check_header


@pytest.mark.parametrize("name", ["x-tenant", "x-llm-d-anything", "x-prefiller-host-port", "authorization", "x-session-token"])
def test_headers_of_others_can_be_set(name: str) -> None:
    check_header(name, "value of one line")


@pytest.mark.parametrize("name", [*sorted(CONTROL), "content-length"])
def test_the_pickers_own_headers_cannot(name: str) -> None:
    with pytest.raises(ValueError, match=f"header {name}: it is the picker's own"):
        check_header(name, "10.0.0.1:8000")


@pytest.mark.parametrize(
    ("name", "value"), [("X-Upper", "a"), ("", "a"), ("a b", "a"), ("naïve", "a"), ("x", "a\nb"), ("x", "\ud800"), ("x", 7)]
)
def test_what_is_no_header_line_cannot(name: str, value: object) -> None:
    with pytest.raises(ValueError):
        check_header(name, value)
