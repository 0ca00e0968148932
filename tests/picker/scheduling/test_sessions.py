"""Session affinity, by token and by id."""

from __future__ import annotations

import base64

import msgspec
import pytest

from picker.result import Response
from picker.scheduling.sessions import SessionAffinityFilter, SessionAffinityScorer, Sessions
from tests.picker.scheduling.pool import build, idle, only, request

POOL = idle(3)
TOKEN = base64.b64encode(b"default/e2").decode()


def test_the_answer_carries_the_token_of_the_endpoint_that_answers() -> None:
    plugin = build(SessionAffinityScorer)
    assert plugin.response_header(request(), Response(POOL.endpoints[1])) == {"x-session-token": TOKEN}
    assert plugin.response_header(request(), Response()) is None


@pytest.mark.parametrize(
    ("headers", "scores", "left"),
    [
        ({}, [0.0, 0.0, 0.0], [0, 1, 2]),
        ({"x-session-token": TOKEN}, [0.0, 1.0, 0.0], [1]),
        ({"x-session-token": base64.b64encode(b"default/gone").decode()}, [0.0, 0.0, 0.0], [0, 1, 2]),
        ({"x-session-token": "!"}, [0.0, 0.0, 0.0], [0, 1, 2]),
        ({"x-session-token": "/w=="}, [0.0, 0.0, 0.0], [0, 1, 2]),
    ],
)
def test_a_token_leads_back(headers: dict[str, str], scores: list[float], left: list[int]) -> None:
    asked = request()
    asked.headers = headers
    assert build(SessionAffinityScorer).score(asked, POOL.candidates()) == scores
    assert list(build(SessionAffinityFilter).filter(asked, POOL.candidates()).positions) == left


def test_a_session_id_leads_back_until_its_time_is_over() -> None:
    plugin = build(SessionAffinityFilter, {"strategy": "session_id", "sources": [{"attribute": "user"}, {"header": "X-Chat"}]})
    asked = request()
    asked.headers = {"x-chat": "7"}
    assert len(plugin.filter(asked, POOL.candidates())) == 3
    plugin.pre_request(asked, POOL, 2)
    asked.received_s = 300
    assert list(plugin.filter(asked, POOL.candidates()).positions) == [2]
    assert len(plugin.filter(asked, only(POOL, 0, 1))) == 2
    asked.received_s = 301
    assert len(plugin.filter(asked, POOL.candidates())) == 3
    asked.attributes["user"] = "8"  # an earlier source counts first
    asked.received_s = 0
    assert len(plugin.filter(asked, POOL.candidates())) == 3
    assert plugin.response_header(asked, Response(POOL.endpoints[1])) is None


def test_sessions_are_bounded_and_swept() -> None:
    sessions = Sessions(ttl_s=10, sweep_s=5, most=2)
    for second, name in enumerate("abc"):
        sessions.put(name, f"n/{name}", second)
    assert [sessions.get(name, 3) for name in "abc"] == [None, "n/b", "n/c"]
    sessions.put("c", "n/d", 12)  # b was used 11 seconds ago
    assert len(sessions) == 1
    assert sessions.get("c", 12) == "n/d"


@pytest.mark.parametrize("source", [{}, {"header": "a", "attribute": "b"}])
def test_a_source_is_one_thing(source: dict[str, str]) -> None:
    with pytest.raises(msgspec.ValidationError):
        build(SessionAffinityScorer, {"sources": [source]})
