"""Session and agent, from what the client sends (contract sections 1.7 and 4.5)."""

from __future__ import annotations

from typing import Any

import pytest

from picker.request import InferenceRequest
from picker.scheduling.identity import AGENT_HEADERS, AgentIdentity, SessionIdProducer, cookie
from tests.picker.scheduling.pool import build, request


def asking(plugin: Any, headers: dict[str, str], fairness_id: str = "default-flow") -> InferenceRequest:
    made = request(b"x")
    made.headers, made.fairness_id = headers, fairness_id
    plugin.request_header(made)
    return made


@pytest.mark.parametrize(
    ("parameters", "headers", "session"),
    [
        ({"headerName": "X-Session"}, {"x-session": "s1"}, "s1"),
        ({"headerName": "x-session"}, {"x-session": ""}, None),
        ({"headerName": "x-session"}, {"cookie": "x-session=s1"}, None),
        ({"cookieName": "sid"}, {"cookie": "a=b; sid=s2; sid=s3"}, "s2"),
        ({"cookieName": "sid"}, {"cookie": 'sid="quoted"'}, "quoted"),
        ({"cookieName": "sid"}, {"cookie": "xsid=1; SID=2"}, None),
        ({"cookieName": "sid"}, {"sid": "s1"}, None),
        ({"cookieName": "sid"}, {}, None),
    ],
)
def test_a_session_id_comes_from_a_header_or_a_cookie(parameters: dict[str, str], headers: dict[str, str], session: str | None) -> None:
    made = asking(build(SessionIdProducer, parameters, name="mine"), headers)
    assert made.attributes == ({} if session is None else {"session-id": session, "session-id/mine": session})
    assert made.fairness_id == "default-flow"


def test_the_first_of_several_producers_names_the_session() -> None:
    made = asking(build(SessionIdProducer, {"headerName": "a"}, name="one"), {"a": "1", "b": "2"})
    build(SessionIdProducer, {"headerName": "b"}, name="two").request_header(made)
    assert made.attributes == {"session-id": "1", "session-id/one": "1", "session-id/two": "2"}


@pytest.mark.parametrize("parameters", [{}, {"headerName": "a", "cookieName": "b"}])
def test_exactly_one_source_of_sessions(parameters: dict[str, str]) -> None:
    with pytest.raises(ValueError, match="exactly one of headerName and cookieName"):
        build(SessionIdProducer, parameters)


@pytest.mark.parametrize(("header", "value"), [("", ""), (";;=; ", ""), ("sid", ""), ("sid=", ""), ("sid=a=b", "a=b"), ('sid="', '"')])
def test_cookies_that_are_none(header: str, value: str) -> None:
    assert cookie(header, "sid") == value


@pytest.mark.parametrize(
    ("headers", "identity", "fairness"),
    [
        *[({name: "agent"}, "agent", "agent") for name in AGENT_HEADERS],
        ({"x-mine": "own"}, "own", "own"),
        ({"x-mine": "own", "session_id": "agent"}, "agent", "agent"),
        ({"session_id": "4", "session-id": "3", "x-session-affinity": "2", "x-claude-code-session-id": "1"}, "1", "1"),
        ({"x-claude-code-session-id": "", "session-id": "3"}, "3", "3"),
        ({"session-id": "agent", "x-llm-d-inference-fairness-id": "team"}, "agent", "team"),
        ({"session-id": "agent", "x-gateway-inference-fairness-id": "default-flow"}, "agent", "default-flow"),
        ({}, None, "default-flow"),
    ],
)
def test_an_agent_is_its_session_unless_the_client_says_otherwise(headers: dict[str, str], identity: str | None, fairness: str) -> None:
    given = headers.get("x-llm-d-inference-fairness-id", "default-flow")
    made = asking(build(AgentIdentity, {"additionalSessionHeaders": ["X-Mine"]}), headers, given)
    assert made.fairness_id == fairness
    assert made.attributes == ({} if identity is None else {"agent-identity": identity, "session-id": identity})


def test_an_empty_header_name_is_refused() -> None:
    with pytest.raises(ValueError, match="found an empty one"):
        build(AgentIdentity, {"additionalSessionHeaders": ["a", ""]})


def test_alpha_plugins_say_so() -> None:
    assert AgentIdentity.experimental and not hasattr(SessionIdProducer, "experimental")
