"""What flow control is told, in seconds, bytes and counts (contract section 5)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from picker.plugin import EvictionFilter, EvictionOrdering, FairnessPolicy, OrderingPolicy, SaturationDetector, UsageLimitPolicy

DEFAULT_TTL_S = 60.0
DEFAULT_BAND_BYTES = 1_000_000_000
DEFAULT_BAND_REQUESTS = 5000


@dataclass(frozen=True, slots=True)
class BandSettings:
    """Of one priority. 0 bytes or requests: no limit. `weight` None: strict, all of this band comes before lower ones."""

    fairness: FairnessPolicy
    ordering: OrderingPolicy
    max_bytes: int = DEFAULT_BAND_BYTES
    max_requests: int = DEFAULT_BAND_REQUESTS
    weight: float | None = None


@dataclass(frozen=True, slots=True)
class EvictionSettings:
    """Who may be taken away from its model server, and in which order. `grace_s` is how long the detector takes to see the relief."""

    filter: EvictionFilter
    ordering: EvictionOrdering
    grace_s: float


@dataclass(frozen=True, slots=True)
class FlowSettings:
    """All of it. 0 bytes or requests: no limit. `as_reference`: one dispatch a cycle, no TTL from requests, nothing is displaced."""

    detector: SaturationDetector
    usage_limit: UsageLimitPolicy
    default_band: BandSettings
    default_negative_band: BandSettings
    bands: dict[int, BandSettings] = field(default_factory=dict)
    max_bytes: int = 0
    max_requests: int = 0
    default_ttl_s: float = DEFAULT_TTL_S
    no_endpoint_ttl_s: float = DEFAULT_TTL_S
    eviction: EvictionSettings | None = None
    as_reference: bool = False

    def band(self, priority: int) -> BandSettings:
        """The settings of a priority, whether it was named or not."""
        named = self.bands.get(priority)
        if named is not None:
            return named
        return self.default_negative_band if priority < 0 else self.default_band

    def plugins(self) -> Sequence[object]:
        """Everything in here that was built from the configuration."""
        bands = [self.default_band, self.default_negative_band, *self.bands.values()]
        eviction = [] if self.eviction is None else [self.eviction.filter, self.eviction.ordering]
        return [self.detector, self.usage_limit, *[p for b in bands for p in (b.fairness, b.ordering)], *eviction]
