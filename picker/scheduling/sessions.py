"""Session affinity: the next request of a session goes where the last one went (contract sections 4.1 and 4.3).

`encoded_endpoint_header`: the answer carries the endpoint in `x-session-token`, the client sends it back, nothing is kept here. The
token is not signed: a client can choose any endpoint that the profile's filters leave. `session_id`: the client names its session, and
where it went is kept here.
"""

from __future__ import annotations

import base64
from collections import OrderedDict
from collections.abc import Mapping
from hashlib import blake2b
from typing import Annotated, Literal, NamedTuple

import msgspec

from picker.plugin import Handle, Parameters
from picker.request import InferenceRequest
from picker.result import Response
from picker.scheduling.endpoint_index import EndpointIndex
from picker.snapshot import Candidates, Snapshot

TOKEN_HEADER = "x-session-token"
ID_HEADER = "x-session-id"
_MOST_SESSIONS = 100_000
"""Clients choose the ids; with keys of 16 bytes that is some 25 MB. The session unused longest goes first."""


class Source(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Where a session id is found: in a request header, or in the request attribute that a plugin has set."""

    header: str = ""
    attribute: str = ""
    producer: str = ""

    def __post_init__(self) -> None:
        if bool(self.header) == bool(self.attribute):
            raise ValueError("a source is either a header or an attribute")

    def of(self, request: InferenceRequest) -> str:
        """The id; empty when there is none."""
        if self.header:
            return request.headers.get(self.header.lower(), "")
        found = request.attributes.get(self.attribute)
        return found if isinstance(found, str) else ""


class SessionParameters(Parameters, frozen=True):
    """All but `strategy` count for `session_id`; without `sources` the id is in the header `x-session-id`.

    A session ends `evictionTtlSeconds` after its last request; ended ones are cleared away at most each `evictionSweepSeconds`.
    """

    strategy: Literal["encoded_endpoint_header", "session_id"] = "encoded_endpoint_header"
    sources: tuple[Source, ...] = ()
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
        self.name = name
        self._by_name = EndpointIndex(str)
        self._sources = parameters.sources or (Source(header=ID_HEADER),)
        encoded = parameters.strategy == "encoded_endpoint_header"
        self._sessions = None if encoded else Sessions(parameters.eviction_ttl_seconds, parameters.eviction_sweep_seconds)

    def _id(self, request: InferenceRequest) -> str:
        return next((found for source in self._sources if (found := source.of(request))), "")

    def _wanted(self, request: InferenceRequest) -> str | None:
        """The endpoint of the request's session as `namespace/name`; None without one."""
        if self._sessions is not None:
            session_id = self._id(request)
            return self._sessions.get(session_id, request.received_s) if session_id else None
        token = request.headers.get(TOKEN_HEADER)
        if not token:
            return None
        try:
            return base64.b64decode(token, validate=True).decode()
        except ValueError:  # not ours: as if there were none
            return None

    def pre_request(self, request: InferenceRequest, snapshot: Snapshot, position: int) -> None:
        """Keeps where the session goes."""
        if self._sessions is not None:
            session_id = self._id(request)
            if session_id:
                self._sessions.put(session_id, str(snapshot.endpoints[position]), request.received_s)

    def response_header(self, request: InferenceRequest, response: Response) -> Mapping[str, str] | None:
        """The token of the endpoint that answers."""
        if self._sessions is not None or response.endpoint is None:
            return None
        return {TOKEN_HEADER: base64.b64encode(str(response.endpoint).encode()).decode()}


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
