"""What scheduling decided, and why: the record an operator reads when asking why a request went where it did.

A record keeps references to what scheduling computed anyway; it is put into words only when somebody asks (`as_dict`). Its parts are
structs: one is made in 0.2 µs, a dataclass in 0.5 to 1.2, and every request makes three.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import msgspec

from picker.endpoint import Endpoint


@dataclass(slots=True)
class Usage:
    """Tokens of one request; None is unknown. `prompt_tokens` includes those that came from a cache (`cached_tokens`)."""

    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    total_tokens: int | None = None
    cached_tokens: int | None = None
    reasoning_tokens: int | None = None


class Response(msgspec.Struct):
    """The model server's answer, as far as it has passed: what response plugins are shown.

    `endpoint` is the one that answers (a fallback, if the proxy said so), None when it is not known. `headers` are lower-cased, of a
    repeated one the last value. From `cause` on everything is known at the end only: `cause` is `completed`, `disconnected`, `evicted`
    or what else ended it; `usage` is None when the answer tells none or is not read.
    """

    endpoint: Endpoint | None = None
    status: int = 200
    headers: Mapping[str, bytes] = {}
    streaming: bool = False
    cause: str = ""
    usage: Usage | None = None
    ttft_s: float | None = None
    total_s: float | None = None


class ScorerLabel(NamedTuple):
    """A scorer, and what its verdict counts for."""

    name: str
    type: str
    weight: float


class ScoreColumn(NamedTuple):
    """One scorer's verdict, aligned with the candidates that were left after filtering."""

    name: str
    type: str
    weight: float
    scores: Sequence[float]


class FilterStep(NamedTuple):
    """What a filter was given and what it left, as positions in the snapshot."""

    name: str
    endpoints: tuple[Endpoint, ...]
    positions: Sequence[int]
    left: Sequence[int]


class ProfileResult(msgspec.Struct):
    """One profile's run. `picked` are indices into `candidates`, best first; `positions` are the candidates' places in the snapshot;
    `scores` has a column for each of `scorers`; `steps` are the filters that took something out."""

    profile: str
    candidates: tuple[Endpoint, ...]
    positions: Sequence[int]
    steps: Sequence[FilterStep]
    scorers: Sequence[ScorerLabel]
    scores: Sequence[Sequence[float]]
    totals: Sequence[float]
    picked: Sequence[int]

    @property
    def endpoints(self) -> list[Endpoint]:
        """The picked endpoints, best first."""
        return [self.candidates[i] for i in self.picked]

    def scores_by_address(self) -> dict[str, float]:
        """The total of every endpoint that was scored, picked or not."""
        return {e.host_port: total for e, total in zip(self.candidates, self.totals, strict=True)}

    @property
    def columns(self) -> list[ScoreColumn]:
        """The scores with their scorers."""
        return [ScoreColumn(*label, scores) for label, scores in zip(self.scorers, self.scores, strict=True)]

    @property
    def filtered(self) -> list[tuple[Endpoint, str]]:
        """The endpoints taken out, each with the filter's name."""
        out: list[tuple[Endpoint, str]] = []
        for step in self.steps:
            left = set(step.left)
            out += [(e, step.name) for p, e in zip(step.positions, step.endpoints, strict=True) if p not in left]
        return out

    @property
    def rows(self) -> int:
        """Endpoints in this record, those taken out included: what it weighs."""
        return len(self.steps[0].endpoints) if self.steps else len(self.candidates)


class Outcome(msgspec.Struct, frozen=True):
    """What became of the request; `cause` is None while it is open. Durations count from the request headers."""

    served: str | None = None
    cause: str | None = None
    status: int | None = None
    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    cached_tokens: int | None = None
    ttft_s: float | None = None
    total_s: float | None = None

    def as_dict(self) -> dict[str, Any]:
        """JSON-ready."""
        return msgspec.structs.asdict(self)


_OPEN = Outcome()


class Decision(msgspec.Struct):
    """A scheduling decision and, once the exchange has settled, what became of it. Times are unix seconds or durations in seconds."""

    request_id: str
    path: str
    model: str
    target_model: str
    time_unix_s: float
    duration_s: float
    result: ProfileResult
    outcome: Outcome | None = None

    def as_dict(self) -> dict[str, Any]:
        """JSON-ready; the form served by `/debug/decisions`."""
        result = self.result
        return {
            "request_id": self.request_id,
            "path": self.path,
            "model": self.model,
            "target_model": self.target_model,
            "time_unix_s": self.time_unix_s,
            "duration_us": round(self.duration_s * 1e6, 1),
            "profile": result.profile,
            "candidates": [str(e) for e in result.candidates],
            "addresses": [e.host_port for e in result.candidates],
            "filtered": [{"endpoint": e.host_port, "by": by, "reason": f"taken out by {by}"} for e, by in result.filtered],
            "scorers": [{"name": c.name, "type": c.type, "weight": c.weight, "scores": list(c.scores)} for c in result.columns],
            "totals": list(result.totals),
            "picked": [e.host_port for e in result.endpoints],
            **(self.outcome or _OPEN).as_dict(),
        }
