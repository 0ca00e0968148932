"""Session affinity, by token and by id."""

from __future__ import annotations

import base64

import msgspec
import pytest

from picker.errors import ParameterError
from picker.request import InferenceRequest
from picker.result import Response
from picker.scheduling.identity import SessionIdProducer
from picker.scheduling.sessions import SessionAffinityFilter, SessionAffinityScorer, Sessions, share_sessions
from tests.picker.scheduling.pool import FakeHandle, build, idle, only, request

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


@pytest.mark.parametrize(
    "source",
    [
        {},
        {"header": "a", "attribute": "b"},
        {"header": "a", "producer": "c"},
        {"attribute": "b", "producer": "c"},
    ],
)
def test_a_source_is_one_thing(source: dict[str, str]) -> None:
    with pytest.raises(msgspec.ValidationError):
        build(SessionAffinityScorer, {"sources": [source]})


def test_the_session_of_one_producer_counts() -> None:
    by_cookie = build(SessionIdProducer, {"cookieName": "sid"}, name="cookie")
    by_header = build(SessionIdProducer, {"headerName": "X-Chat"}, name="chat")
    sources = [{"attribute": "session-id", "producer": "chat"}]
    plugin = build(SessionAffinityScorer, {"strategy": "session_id", "sources": sources}, FakeHandle(chat=by_header))

    def asked(**headers: str) -> InferenceRequest:
        made = request()
        made.headers = {name.replace("_", "-"): value for name, value in headers.items()}
        by_cookie.request_header(made)
        by_header.request_header(made)
        return made

    plugin.pre_request(asked(cookie="sid=1", x_chat="7"), POOL, 2)
    assert plugin.score(asked(cookie="sid=2", x_chat="7"), POOL.candidates()) == [0.0, 0.0, 1.0]
    assert plugin.score(asked(cookie="sid=1"), POOL.candidates()) == [0.0, 0.0, 0.0]
    assert plugin.consumes == {"session-id"}


def test_plugins_with_the_same_parameters_share_their_sessions() -> None:
    scorer = build(SessionAffinityScorer, {"strategy": "session_id"})
    filter_ = build(SessionAffinityFilter, {"strategy": "session_id"})
    other = build(SessionAffinityFilter, {"strategy": "session_id", "sources": [{"header": "x-chat"}]})
    by_token = build(SessionAffinityFilter)
    filter_.sessions.put("old", "default/e2", 0.0)
    kept = filter_.sessions
    share_sessions([scorer, other, filter_, by_token])
    assert scorer.sessions is filter_.sessions is kept  # the one that knew something
    assert other.sessions is not kept and by_token.sessions is None
    asked = request()
    asked.headers = {"x-session-id": "old"}
    assert scorer.score(asked, POOL.candidates()) == [0.0, 1.0, 0.0]


def test_a_profile_name_is_refused() -> None:
    with pytest.raises(ParameterError, match="a session stays with the endpoint of the primary profile") as error:
        build(SessionAffinityFilter, {"profileName": "prefill"})
    assert error.value.path == "profileName"
