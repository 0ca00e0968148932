"""The kit for plugin authors' tests."""

from __future__ import annotations

import msgspec
import pytest

from fairlead.plugin import Candidates, Handle, InferenceRequest, Parameters
from fairlead.testing import Server, build, candidates, request, snapshot
from picker.errors import ConfigError


class Limits(Parameters, frozen=True):
    max_waiting: int = 3


class Mine:
    Parameters = Limits
    parameters: Limits

    def score(self, request: InferenceRequest, candidates: Candidates) -> list[float]:
        return [float(m.waiting <= self.parameters.max_waiting) for m in candidates.metrics]


class Asks:
    def __init__(self, name: str, parameters: object, handle: Handle) -> None:
        self.name = name
        self.other = handle.plugin("other", "other-type")

    def score(self, request: InferenceRequest, candidates: Candidates) -> list[float]:
        raise ZeroDivisionError


def test_servers_are_what_they_are_said_to_be() -> None:
    pool = candidates(Server(waiting=2, running=1, kv_usage=0.5, labels={"a": "b"}, in_flight=3), Server(adapters=["x"], reported=False))
    first, second = pool.metrics
    assert (first.waiting, first.running, first.kv_usage, first.updated_s) == (2, 1, 0.5, 0.0)
    assert (second.active_adapters, second.updated_s) == ({"x"}, None)
    assert [load.requests for load in pool.loads] == [3, 0]
    assert [(e.name, e.host_port, dict(e.labels)) for e in pool.endpoints] == [
        ("e1", "10.0.0.1:8000", {"a": "b"}),
        ("e2", "10.0.0.2:8000", {}),
    ]
    assert len({e.host_port for e in candidates(*[Server()] * 1000).endpoints}) == 1000
    with pytest.raises(ValueError, match="at least one"):
        snapshot()


def test_a_request_is_what_it_is_said_to_be() -> None:
    asked = request("hello world", model="m", headers={"x": "y"}, priority=-1)
    assert (asked.model, asked.target_model, asked.headers, asked.priority) == ("m", "m", {"x": "y"}, -1)
    assert asked.prompt_tokens > 0


def test_a_plugin_is_built_as_the_picker_does() -> None:
    pool = candidates(Server(waiting=3), Server(waiting=4))
    assert build(Mine).score(request(), pool) == [1.0, 0.0]
    made = build(Mine, {"maxWaiting": 4}, name="it")
    assert (made.score(request(), pool), made.name) == ([1.0, 1.0], "it")
    for wrong in ({"max_waiting": 1}, {"maxWaiting": "4"}):
        with pytest.raises(msgspec.ValidationError):
            build(Mine, wrong)
    with pytest.raises(ConfigError, match="has none of the methods"):
        build(Server)


def test_what_it_asks_its_handle_for_is_given_to_build() -> None:
    made = build(Asks, plugins={"other": 7})
    assert made.other == 7
    with pytest.raises(ZeroDivisionError):
        made.score(request(), candidates(Server()))
    with pytest.raises(ConfigError, match="no plugin 'other'"):
        build(Asks)
