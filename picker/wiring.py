"""What the plugins of a configuration need from each other once all of them are made: checked, then connected."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from typing import Any

from picker.accounting.attribute_reporter import RequestAttributeReporter
from picker.admission.latency_slo import LatencySloAdmitter
from picker.admission.probabilistic import ProbabilisticAdmitter
from picker.errors import ConfigError, Internal, Rejected
from picker.keys import ABSENT_PRODUCERS
from picker.metrics import Metrics
from picker.plugin import ProfileHandler
from picker.scheduling.handlers import HeaderProfileHandler, OneProfile
from picker.scheduling.inflight_load import InflightLoadProducer
from picker.scheduling.producers import ApproxPrefixCacheProducer
from picker.scheduling.sessions import share_sessions

PlaceOf = Callable[[str, str], str]
"""Puts a path inside the entry of the plugin of this name into words; '' for the entry."""


def check_profiles(handler: ProfileHandler, names: Collection[str], where: str, place_of: PlaceOf) -> None:
    """Raises ConfigError when the handler cannot work with profiles of these names; `where` is their place."""
    if isinstance(handler, OneProfile) and len(names) > 1:
        raise ConfigError(f"{where}: {type(handler).__name__} cannot support multiple scheduling profiles")
    if isinstance(handler, HeaderProfileHandler) and handler.default not in names:
        place = place_of(handler.name, "parameters.defaultProfile")
        raise ConfigError(f"{place}: '{handler.default}' is not one of the scheduling profiles: {', '.join(names)}")


def check_data(plugins: Sequence[Any], place_of: PlaceOf) -> None:
    """Raises ConfigError when one consumes what none produces."""
    produced = {key for plugin in plugins for key in getattr(plugin, "produces", ())}
    for plugin in plugins:
        for key in sorted(set(getattr(plugin, "consumes", ())) - produced):
            hint = ABSENT_PRODUCERS.get(key, "a plugin that has it in its 'produces' is needed")
            raise ConfigError(f"{place_of(plugin.name, '')}: '{plugin.name}' needs the data '{key}', and no plugin produces it: {hint}")


def in_order(producers: Sequence[Any], place_of: PlaceOf) -> list[Any]:
    """Each behind those that produce what it consumes, else as they came. Raises ConfigError when they wait for each other."""
    ordered: list[Any] = []
    waiting = list(producers)
    while waiting:
        for producer in waiting:
            others = {key for other in waiting if other is not producer for key in other.produces}
            if others.isdisjoint(producer.consumes):
                break
        else:
            names = ", ".join(producer.name for producer in waiting)
            raise ConfigError(f"{place_of(waiting[0].name, '')}: these data producers wait for each other: {names}")
        ordered.append(producer)
        waiting.remove(producer)
    return ordered


def connect(plugins: Sequence[Any], producers: Sequence[ApproxPrefixCacheProducer], metrics: Metrics, *, as_reference: bool) -> None:
    """`producers` are those of the prefix cache among the plugins; `as_reference`: refusals have the reference's status codes."""
    for producer in producers:
        labels = (producer.name, producer.type)
        producer.observe_with(metrics.prefix_hit_ratio.cell(*labels), metrics.prefix_hit_bytes.cell(*labels))
    for plugin in plugins:
        if isinstance(plugin, InflightLoadProducer):
            plugin.prefix = plugin.prefix or producers[0]  # consumed, hence made if nobody configured one
        if isinstance(plugin, RequestAttributeReporter):
            plugin.failures = metrics.attribute_errors.cell(plugin.name)
        if as_reference and isinstance(plugin, ProbabilisticAdmitter | LatencySloAdmitter):
            plugin.refuse = Internal
        if as_reference and isinstance(plugin, HeaderProfileHandler):
            plugin.refuse = _no_target
    share_sessions(plugins)


def _no_target(message: str) -> Rejected:
    return Rejected(f"failed to find target endpoint: {message}")
