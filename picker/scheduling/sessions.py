"""Session affinity: the next request of a session goes where the last one went (contract sections 4.1 and 4.3).

`encoded_endpoint_header`: the answer carries the endpoint in `x-session-token`, the client sends it back, nothing is kept here. The
token is not signed: a client can choose any endpoint that the profile's filters leave. `session_id`: the client names its session, and
where it went is kept here.
"""

from __future__ import annotations

import base64
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from hashlib import blake2b
from typing import Annotated, Literal, NamedTuple

import msgspec

from picker.errors import ParameterError
from picker.keys import SESSION_ID
from picker.plugin import Handle, Parameters
from picker.request import InferenceRequest
from picker.result import Response
from picker.scheduling.endpoint_index import EndpointIndex
from picker.scheduling.identity import SessionIdProducer
from picker.snapshot import Candidates, Snapshot

TOKEN_HEADER = "x-session-token"
ID_HEADER = "x-session-id"
_MOST_SESSIONS = 100_000
"""Clients choose the ids; with keys of 16 bytes that is some 25 MB. The session unused longest goes first."""


class Source(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Where a session id is found: in a request header, or in the request attribute that a plugin has set.

    With the attribute `session-id`, `producer` is the name of the session-id-producer that counts; without, the first that found one does.
    """

    header: str = ""
    attribute: str = ""
    producer: str = ""

    def __post_init__(self) -> None:
        if bool(self.header) == bool(self.attribute):
            raise ValueError("a source is either a header or an attribute")
        if self.producer and self.attribute != SESSION_ID:
            raise ValueError(f"a source has a producer with the attribute {SESSION_ID} only; other attributes have one each")

    @property
    def key(self) -> str:
        """Of the attribute: that of one producer, or of whichever found an id first."""
        return f"{self.attribute}/{self.producer}" if self.producer else self.attribute

    def of(self, request: InferenceRequest) -> str:
        """The id; empty when there is none."""
        if self.header:
            return request.headers.get(self.header.lower(), "")
        found = request.attributes.get(self.key)
        return found if isinstance(found, str) else ""


class SessionParameters(Parameters, frozen=True):
    """All but `strategy` count for `session_id`; without `sources` the id is in the header `x-session-id`.

    A session ends `evictionTtlSeconds` after its last request; ended ones are cleared away at most each `evictionSweepSeconds`.
    `profileName` is refused: only the primary profile's endpoint is kept.
    """

    strategy: Literal["encoded_endpoint_header", "session_id"] = "encoded_endpoint_header"
    sources: tuple[Source, ...] = ()
    profile_name: str = ""
    eviction_ttl_seconds: Annotated[float, msgspec.Meta(gt=0)] = 300
    eviction_sweep_seconds: Annotated[float, msgspec.Meta(gt=0)] = 10


class _Session(NamedTuple):
    endpoint: str
    used_s: float


class Sessions:
    """Where each session went last. Times are monotonic seconds."""

    def __init__(self, ttl_s: float, sweep_s: float, most: int = _MOST_SESSIONS) -> None:
        self._ttl_s = ttl_s
        self._sweep_s = sweep_s
        self._most = most
        self._swept_s = float("-inf")
        self._by_key: OrderedDict[bytes, _Session] = OrderedDict()  # used longest ago first

    def __len__(self) -> int:
        return len(self._by_key)

    def get(self, session_id: str, now_s: float) -> str | None:
        """The endpoint as `namespace/name`; None for a session that is new or has ended."""
        session = self._by_key.get(_key(session_id))
        return None if session is None or now_s - session.used_s > self._ttl_s else session.endpoint

    def put(self, session_id: str, endpoint: str, now_s: float) -> None:
        """It went there."""
        if now_s - self._swept_s >= self._sweep_s:
            self._swept_s = now_s
            while self._by_key and now_s - next(iter(self._by_key.values())).used_s > self._ttl_s:
                self._by_key.popitem(last=False)
        key = _key(session_id)
        self._by_key[key] = _Session(endpoint, now_s)
        self._by_key.move_to_end(key)
        if len(self._by_key) > self._most:
            self._by_key.popitem(last=False)


def _key(session_id: str) -> bytes:
    return blake2b(session_id.encode("utf-8", "surrogateescape"), digest_size=16).digest()


class _SessionAffinity:
    """What the scorer and the filter share."""

    Parameters = SessionParameters
    experimental = True

    def __init__(self, name: str, parameters: SessionParameters, handle: Handle) -> None:
        if parameters.profile_name:
            raise ParameterError(
                "profileName", "is not in this version: a session stays with the endpoint of the primary profile; leave it out"
            )
        self.name = name
        self.parameters = parameters
        self._by_name = EndpointIndex(str)
        self._sources = parameters.sources or (Source(header=ID_HEADER),)
        for source in self._sources:
            if source.producer:
                handle.plugin(source.producer, SessionIdProducer.type)
        encoded = parameters.strategy == "encoded_endpoint_header"
        self.consumes = frozenset({SESSION_ID} if not encoded and any(s.attribute == SESSION_ID for s in self._sources) else ())
        self.sessions = None if encoded else Sessions(parameters.eviction_ttl_seconds, parameters.eviction_sweep_seconds)
        """None: the client keeps where its session is."""

    def _id(self, request: InferenceRequest) -> str:
        return next((found for source in self._sources if (found := source.of(request))), "")

    def _wanted(self, request: InferenceRequest) -> str | None:
        """The endpoint of the request's session as `namespace/name`; None without one."""
        if self.sessions is not None:
            session_id = self._id(request)
            return self.sessions.get(session_id, request.received_s) if session_id else None
        token = request.headers.get(TOKEN_HEADER)
        if not token:
            return None
        try:
            return base64.b64decode(token, validate=True).decode()
        except ValueError:  # not ours: as if there were none
            return None

    def pre_request(self, request: InferenceRequest, snapshot: Snapshot, position: int) -> None:
        """Keeps where the session goes."""
        if self.sessions is not None:
            session_id = self._id(request)
            if session_id:
                self.sessions.put(session_id, str(snapshot.endpoints[position]), request.received_s)

    def response_header(self, request: InferenceRequest, response: Response) -> Mapping[str, str] | None:
        """The token of the endpoint that answers."""
        if self.sessions is not None or response.endpoint is None:
            return None
        return {TOKEN_HEADER: base64.b64encode(str(response.endpoint).encode()).decode()}


def share_sessions(plugins: Sequence[object]) -> None:
    """Plugins with the same parameters keep one map, the fullest that they have: 25 MB of sessions need not be there twice."""
    alike: dict[SessionParameters, list[_SessionAffinity]] = {}
    for plugin in plugins:
        if isinstance(plugin, _SessionAffinity) and plugin.sessions is not None:
            alike.setdefault(plugin.parameters, []).append(plugin)
    for group in alike.values():
        kept = max([plugin.sessions for plugin in group if plugin.sessions is not None], key=len)
        for plugin in group:
            plugin.sessions = kept


class SessionAffinityScorer(_SessionAffinity):
    """Prefers the endpoint of the request's session."""

    type = "session-affinity-scorer"
    bounded = True

    def score(self, request: InferenceRequest, candidates: Candidates) -> list[float]:
        """1 for that endpoint, 0 for the others."""
        wanted = self._wanted(request)
        if wanted is None:
            return [0.0] * len(candidates)
        return self._by_name.marks(candidates, wanted)


class SessionAffinityFilter(_SessionAffinity):
    """Keeps only the endpoint of the request's session, as long as it is a candidate."""

    type = "session-affinity-filter"

    def filter(self, request: InferenceRequest, candidates: Candidates) -> Candidates:
        """All of them without a session, or when its endpoint is gone."""
        wanted = self._wanted(request)
        if wanted is None:
            return candidates
        indices = self._by_name.indices(candidates, wanted)
        return candidates.at(indices) if indices else candidates
