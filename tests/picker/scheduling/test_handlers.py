"""Which profile runs."""

from __future__ import annotations

import pytest

from picker.errors import BadRequest
from picker.scheduling.handlers import HeaderProfileHandler
from tests.picker.scheduling.pool import build, request


def test_the_header_names_the_profile() -> None:
    handler = build(HeaderProfileHandler)
    asked = request()
    assert handler.profiles(asked, ("prefill", "decode")) == ("decode",)
    asked.headers = {"epp-profile": "prefill"}
    assert handler.profiles(asked, ("prefill", "decode")) == ("prefill",)
    asked.headers = {"epp-profile": "other"}
    with pytest.raises(BadRequest, match=r"'other'.*prefill, decode"):
        handler.profiles(asked, ("prefill", "decode"))
