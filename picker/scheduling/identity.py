"""Who is asking: session and agent, from what the client sends (contract section 4.5). Read before a request is admitted."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from picker.keys import AGENT_IDENTITY, FAIRNESS_ID, SESSION_ID
from picker.plugin import Handle, Parameters
from picker.request import InferenceRequest

AGENT_HEADERS = ("x-claude-code-session-id", "x-session-affinity", "session-id", "session_id")
"""What coding agents send, in order of preference."""


class SessionIdParameters(Parameters, frozen=True):
    """Exactly one of the two."""

    header_name: str = ""
    cookie_name: str = ""


class SessionIdProducer:
    """Leaves the session id that a header or a cookie carries in `request.attributes`.

    Under `session-id`, where the first producer that finds one wins, and under `session-id/<name of this plugin>`.
    """

    type = "session-id-producer"
    Parameters = SessionIdParameters
    produces: ClassVar[frozenset[str]] = frozenset({SESSION_ID})
    consumes: ClassVar[frozenset[str]] = frozenset()

    def __init__(self, name: str, parameters: SessionIdParameters, handle: Handle) -> None:
        if bool(parameters.header_name) == bool(parameters.cookie_name):
            raise ValueError("expected exactly one of headerName and cookieName")
        self.name = name
        self._key = f"{SESSION_ID}/{name}"
        self._header = parameters.header_name.lower()
        self._cookie = parameters.cookie_name

    def request_header(self, request: InferenceRequest) -> None:
        """Nothing is left when the client sends none."""
        headers = request.headers
        session = headers.get(self._header, "") if self._header else cookie(headers.get("cookie", ""), self._cookie)
        if session:
            request.attributes[self._key] = session
            request.attributes.setdefault(SESSION_ID, session)


class AgentIdentityParameters(Parameters, frozen=True):
    """Headers to look at after the known ones."""

    additional_session_headers: tuple[str, ...] = ()


class AgentIdentity:
    """A coding agent's session is its fairness id, unless the client gives one.

    Also left as `agent-identity`, and as `session-id` when no session-id-producer found one before.
    """

    type = "agent-identity"
    Parameters = AgentIdentityParameters
    experimental = True
    produces: ClassVar[frozenset[str]] = frozenset({AGENT_IDENTITY, SESSION_ID})
    consumes: ClassVar[frozenset[str]] = frozenset()

    def __init__(self, name: str, parameters: AgentIdentityParameters, handle: Handle) -> None:
        if "" in parameters.additional_session_headers:
            raise ValueError("additionalSessionHeaders: expected header names, found an empty one")
        self.name = name
        self._headers = (*AGENT_HEADERS, *[header.lower() for header in parameters.additional_session_headers])

    def request_header(self, request: InferenceRequest) -> None:
        """Fairness header > agent's session > default (contract section 1.7)."""
        headers = request.headers
        identity = _first(headers, self._headers)
        if not identity:
            return
        request.attributes[AGENT_IDENTITY] = identity
        request.attributes.setdefault(SESSION_ID, identity)
        if not _first(headers, FAIRNESS_ID):
            request.fairness_id = identity


def cookie(header: str, name: str) -> str:
    """The value of the first cookie of this name in a Cookie header (RFC 6265, section 4.2); '' when there is none."""
    for pair in header.split(";"):
        key, equals, value = pair.partition("=")
        if equals and key.strip() == name:
            return _unquoted(value.strip())
    return ""


def _unquoted(value: str) -> str:
    return value[1:-1] if len(value) >= 2 and value[0] == value[-1] == '"' else value


def _first(headers: Mapping[str, str], names: tuple[str, ...]) -> str:
    for name in names:
        if value := headers.get(name):
            return value
    return ""
