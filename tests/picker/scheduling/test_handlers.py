"""Which profile runs."""

from __future__ import annotations

import msgspec
import pytest

from picker.endpoint import Endpoint
from picker.errors import BadRequest
from picker.scheduling.handlers import DataParallelProfileHandler, HeaderProfileHandler
from picker.snapshot import Snapshot
from tests.picker.scheduling.pool import build, idle, request


def test_the_header_names_the_profile() -> None:
    handler = build(HeaderProfileHandler)
    asked = request()
    assert handler.profiles(asked, ("prefill", "decode")) == ("decode",)
    asked.headers = {"epp-profile": "prefill"}
    assert handler.profiles(asked, ("prefill", "decode")) == ("prefill",)
    asked.headers = {"epp-profile": "other"}
    with pytest.raises(BadRequest, match=r"'other'.*prefill, decode"):
        handler.profiles(asked, ("prefill", "decode"))


@pytest.mark.parametrize(
    ("address", "parameters", "destination", "rank"),
    [
        ("10.0.0.1", {}, "10.0.0.1:8000", "10.0.0.1:8003"),
        ("10.0.0.1", {"primaryPort": 9000}, "10.0.0.1:9000", "10.0.0.1:8003"),
        ("fd00::1", {}, "[fd00::1]:8000", "[fd00::1]:8003"),
    ],
)
def test_a_rank_is_named_in_a_header(address: str, parameters: dict[str, int], destination: str, rank: str) -> None:
    one = idle(1)
    snapshot = Snapshot(1, [Endpoint("e", address, 8003)], one.metrics, one.loads, one.bits)
    asked = request()
    handler = build(DataParallelProfileHandler, parameters)
    assert handler.profiles(asked, ("default",)) == ("default",)
    handler.pre_request(asked, snapshot, 0)
    assert asked.destination == destination
    assert asked.more_headers == {"x-data-parallel-host-port": rank}


@pytest.mark.parametrize("port", [0, 65536])
def test_the_primary_port_is_a_port(port: int) -> None:
    with pytest.raises(msgspec.ValidationError):
        build(DataParallelProfileHandler, {"primaryPort": port})
