"""How full the pool is, stage by stage."""

from __future__ import annotations

from collections.abc import Callable

from picker.endpoint import Endpoint
from picker.plugin import SaturationDetector
from picker.snapshot import Candidates, Snapshot

ROLE_LABEL = "llm-d.ai/role"
PREFILL, DECODE = "prefill", "decode"
_ROLES = {
    "prefill": (PREFILL,),
    "encode-prefill": (PREFILL,),
    "encode": (),
}
"""Stages of endpoints by their role; any other, and none, decodes. Those that do both count as decoding."""


class Room:
    """The saturation of the pool: that of its fuller stage (contract section 5)."""

    def __init__(self, detector: SaturationDetector, snapshot: Callable[[], Snapshot]) -> None:
        self.detector = detector
        self._snapshot = snapshot
        self._endpoints: tuple[Endpoint, ...] | None = None
        self._positions: dict[str, list[int]] = {}
        self._one_stage = False
        self._last: Snapshot | None = None
        self._all: Candidates = Snapshot(0, [], [], [], []).candidates()
        """All endpoints of `_last`."""

    def stale(self, now_s: float) -> int | None:
        """Endpoints that count as full because nothing new is known of them; None when the detector does not look at that."""
        stale = getattr(self.detector, "stale", None)
        return None if stale is None else int(stale(self._snapshot().candidates(), now_s))

    def stages(self, now_s: float) -> dict[str, float]:
        """The saturation of each stage that has endpoints; nothing when there are none."""
        snapshot = self._snapshot()
        if snapshot.endpoints is not self._endpoints:
            self._arrange(snapshot)
        saturation = self.detector.saturation
        if self._one_stage:
            return dict.fromkeys(self._positions, saturation(snapshot.candidates(), now_s))
        found: dict[str, float] = {}
        for stage, positions in self._positions.items():
            found[stage] = saturation(Candidates(snapshot, positions, tuple([snapshot.endpoints[p] for p in positions])), now_s)
        return found

    def saturation(self, now_s: float) -> float:
        """Of the fuller stage; an empty pool is full."""
        level = self.level(now_s)
        return 1.0 if level is None else level

    def level(self, now_s: float) -> float | None:
        """The saturation; None when there are no endpoints."""
        # Asked several times for each request. In nearly every pool all endpoints are of one stage.
        snapshot = self._snapshot()
        if snapshot is not self._last:
            if snapshot.endpoints is not self._endpoints:
                self._arrange(snapshot)
            self._last, self._all = snapshot, snapshot.candidates()
        if self._one_stage:
            return self.detector.saturation(self._all, now_s)
        if not snapshot.endpoints:
            return None
        return max(self.stages(now_s).values(), default=1.0)

    def _arrange(self, snapshot: Snapshot) -> None:
        self._endpoints = snapshot.endpoints
        self._positions = {}
        for position, endpoint in enumerate(snapshot.endpoints):
            for stage in _ROLES.get(endpoint.labels.get(ROLE_LABEL, ""), (DECODE,)):
                self._positions.setdefault(stage, []).append(position)
        self._one_stage = len(self._positions) == 1 and all(len(p) == len(snapshot) for p in self._positions.values())
