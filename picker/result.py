"""What scheduling decided, and why: the record an operator reads when asking why a request went where it did.

A record keeps references to what scheduling computed anyway; it is put into words only when somebody asks (`as_dict`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from picker.endpoint import Endpoint


@dataclass(slots=True)
class ScoreColumn:
    """One scorer's verdict, aligned with the candidates that were left after filtering."""

    name: str
    type: str
    weight: float
    scores: Sequence[float]


@dataclass(slots=True)
class ProfileResult:
    """One profile's run. `picked` are indices into `candidates`, best first; `positions` are the candidates' places in the
    snapshot; `filtered` pairs endpoints with the filter's name."""

    profile: str
    candidates: tuple[Endpoint, ...]
    positions: Sequence[int]
    filtered: list[tuple[Endpoint, str]]
    columns: list[ScoreColumn]
    totals: Sequence[float]
    picked: Sequence[int]

    @property
    def endpoints(self) -> list[Endpoint]:
        """The picked endpoints, best first."""
        return [self.candidates[i] for i in self.picked]


@dataclass(frozen=True, slots=True)
class Outcome:
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
        return asdict(self)


_OPEN = Outcome()


@dataclass(slots=True)
class Decision:
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
