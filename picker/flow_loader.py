"""The `flowControl` section of a configuration, made into settings with the plugins it names (contract sections 3 and 5)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

from picker.admission.flow.eviction import EvictionPriorityThenTimeOrdering, EvictionSheddableFilter
from picker.admission.flow.fairness import GlobalStrictFairnessPolicy
from picker.admission.flow.ordering import FcfsOrderingPolicy
from picker.admission.flow.settings import (
    DEFAULT_BAND_BYTES,
    DEFAULT_BAND_REQUESTS,
    DEFAULT_TTL_S,
    BandSettings,
    EvictionSettings,
    FlowSettings,
)
from picker.admission.flow.usage_limits import StaticUsageLimitPolicy
from picker.admission.saturation import UtilizationDetector
from picker.config import FlowControlSpec, PriorityBandSpec
from picker.errors import ConfigError
from picker.plugin import (
    EvictionFilter,
    EvictionOrdering,
    FairnessPolicy,
    OrderingPolicy,
    SaturationDetector,
    UsageLimitPolicy,
)
from picker.units import parse_duration_s, parse_quantity

_QUICK_GRACE_S = 0.01
_DETECTOR_SLACK_S = 0.25


class Plugins(Protocol):
    """Where plugins come from."""

    def named(self, name: str, kind: Any, what: str, where: str) -> Any:
        """The plugin of this name, made with default parameters when it is a type of ours that the configuration does not mention.

        Raises ConfigError naming `where` when there is none, or when it is no `kind` (`what`, in words)."""


def flow_settings(
    spec: FlowControlSpec,
    plugins: Plugins,
    detector: SaturationDetector,
    where: Callable[[str], str],
    *,
    refresh_s: float,
    as_reference: bool,
) -> FlowSettings:
    """`where` puts a path inside `flowControl` into words; `refresh_s` is how old a model server's numbers may be. Raises ConfigError."""

    def band(b: PriorityBandSpec | None, path: str) -> BandSettings:
        b = b or PriorityBandSpec()
        if b.weight is not None and not 0 < b.weight < float("inf"):
            raise ConfigError(f"{where(f'{path}.weight')}: expected a number above 0, got {b.weight}")
        fairness = plugins.named(
            b.fairness_policy_ref or GlobalStrictFairnessPolicy.type,
            FairnessPolicy,
            "a fairness policy",
            where(f"{path}.fairnessPolicyRef"),
        )
        ordering = plugins.named(
            b.ordering_policy_ref or FcfsOrderingPolicy.type, OrderingPolicy, "an ordering policy", where(f"{path}.orderingPolicyRef")
        )
        return BandSettings(
            fairness,
            ordering,
            _size(b.max_bytes, DEFAULT_BAND_BYTES, where(f"{path}.maxBytes")),
            _size(b.max_requests, DEFAULT_BAND_REQUESTS, where(f"{path}.maxRequests")),
            b.weight,
        )

    bands: dict[int, BandSettings] = {}
    for i, named in enumerate(spec.priority_bands):
        path = f"priorityBands[{i}]"
        if named.priority in bands:
            raise ConfigError(f"{where(f'{path}.priority')}: priority {named.priority} is given twice")
        bands[named.priority] = band(named, path)
    usage_limit = plugins.named(
        spec.usage_limit_policy_plugin_ref or StaticUsageLimitPolicy.type,
        UsageLimitPolicy,
        "a usage limit policy",
        where("usageLimitPolicyPluginRef"),
    )
    ttl_s = _ttl(spec.default_request_ttl, DEFAULT_TTL_S, where("defaultRequestTTL"))
    return FlowSettings(
        detector,
        usage_limit,
        band(spec.default_priority_band, "defaultPriorityBand"),
        band(spec.default_negative_priority_band, "defaultNegativePriorityBand"),
        bands,
        _size(spec.max_bytes, 0, where("maxBytes")),
        _size(spec.max_requests, 0, where("maxRequests")),
        ttl_s,
        _ttl(spec.no_endpoint_request_ttl, ttl_s, where("noEndpointRequestTTL")),
        _eviction(plugins, detector, where("enableEviction"), refresh_s) if spec.enable_eviction else None,
        as_reference,
    )


def _eviction(plugins: Plugins, detector: SaturationDetector, where: str, refresh_s: float) -> EvictionSettings:
    grace_s = _QUICK_GRACE_S
    if isinstance(detector, UtilizationDetector):  # what it sees is as old as the last scrape
        grace_s = refresh_s + detector.stale_s + _DETECTOR_SLACK_S
    return EvictionSettings(
        plugins.named(EvictionSheddableFilter.type, EvictionFilter, "an eviction filter", where),
        plugins.named(EvictionPriorityThenTimeOrdering.type, EvictionOrdering, "an eviction ordering", where),
        grace_s,
    )


def _size(written: int | str | None, default: int, where: str) -> int:
    if written is None:
        return default
    try:
        size = parse_quantity(str(written))
    except ValueError as error:
        raise ConfigError(f"{where}: {error}") from None
    return size


def _ttl(written: Any, default_s: float, where: str) -> float:
    if written is None:
        return default_s
    try:
        return parse_duration_s(str(written))
    except ValueError as error:
        raise ConfigError(f"{where}: {error}") from None
