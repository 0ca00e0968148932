"""What the configuration's `dataLayer` comes to: which sources are polled, for which extractors, and where endpoints come from."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from picker.datalayer.discovery.source import DiscoveryPlugin
from picker.datalayer.extractor_plugins import CoreMetricsExtractor
from picker.datalayer.source_plugins import EndpointNotificationSource, MetricsDataSource, ModelsDataSource
from picker.plugin import DataSource, EndpointEventExtractor, Extractor

Source = MetricsDataSource | ModelsDataSource | EndpointNotificationSource | DataSource


@dataclass(frozen=True, slots=True)
class AttachedSource:
    """A source and its extractors, which fit it."""

    source: Source
    core: CoreMetricsExtractor | None = None
    extractors: Sequence[Extractor] = ()
    event_extractors: Sequence[EndpointEventExtractor] = ()

    @property
    def extractor_types(self) -> list[str]:
        """Of all extractors."""
        core = [] if self.core is None else [self.core.type]
        return [*core, *[e.type for e in self.extractors], *[e.type for e in self.event_extractors]]


@dataclass(frozen=True, slots=True)
class DataLayerParts:
    """`discovery` None: the flags say where endpoints are."""

    sources: Sequence[AttachedSource] = ()
    discovery: DiscoveryPlugin | None = None

    def same_as(self, other: DataLayerParts) -> bool:
        """Whether both are made of the same plugins."""
        return self._identity() == other._identity()

    def _identity(self) -> list[list[int]]:
        attached = [[id(s.source), id(s.core), *map(id, s.extractors), *map(id, s.event_extractors)] for s in self.sources]
        return [[id(self.discovery)], *attached]


def is_source(plugin: Any) -> bool:
    """Whether a plugin can be listed in `dataLayer.sources`."""
    return isinstance(plugin, MetricsDataSource | ModelsDataSource | EndpointNotificationSource | DataSource)


def is_extractor(plugin: Any) -> bool:
    """Whether a plugin can be listed under a source's `extractors`."""
    return isinstance(plugin, CoreMetricsExtractor | Extractor | EndpointEventExtractor)
