"""From the configuration's `dataLayer` to sources with their extractors: references checked, defaults filled in (contract section 3)."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Sequence
from typing import Any, Protocol

from picker.config import DataLayerSpec, SourceSpec
from picker.datalayer.discovery.source import DiscoveryPlugin
from picker.datalayer.extractor_plugins import CoreMetricsExtractor, ModelsDataExtractor
from picker.datalayer.parts import AttachedSource, DataLayerParts, is_extractor, is_source
from picker.datalayer.source_plugins import MIN_INTERVAL_S, EndpointNotificationSource, MetricsDataSource, ModelsDataSource
from picker.errors import ConfigError
from picker.plugin import EndpointEventExtractor, Extractor
from picker.registry import nearest

log = logging.getLogger(__name__)


class Plugins(Protocol):
    """The plugins of the configuration."""

    def get(self, name: str) -> Any:
        """The plugin of this name; None when the configuration has none."""

    def default(self, type_: str) -> Any:
        """The plugin that is there although the configuration does not mention it."""

    def declared(self) -> dict[str, Any]:
        """All that were written, by name."""


def data_layer(spec: DataLayerSpec | None, plugins: Plugins, where: Callable[[str], str]) -> DataLayerParts:
    """`where` puts a path in the document into words. Raises ConfigError with it."""
    return _DataLayer(spec or DataLayerSpec(), plugins, where).parts()


class _DataLayer:
    def __init__(self, spec: DataLayerSpec, plugins: Plugins, where: Callable[[str], str]) -> None:
        self._spec = spec
        self._plugins = plugins
        self._where = where
        self._used: set[str] = set()

    def parts(self) -> DataLayerParts:
        pairs = [self._written(i, source) for i, source in enumerate(self._spec.sources)]
        if self._spec.inject_defaults:
            self._inject(pairs)
        carriers = [source for source, extractors in pairs if any(isinstance(e, CoreMetricsExtractor) for e in extractors)]
        if len(carriers) > 1:
            names = ", ".join(source.name for source in carriers)
            raise ConfigError(f"{self._where('dataLayer.sources')}: only one source can have a core-metrics-extractor, not {names}")
        for i, (source, extractors) in enumerate(pairs):
            if not extractors:
                raise ConfigError(
                    f"{self._where(f'dataLayer.sources[{i}]')}: '{source.name}' has no extractors; it would be asked for nothing"
                )
        discovery = self._discovery()
        for name, plugin in self._plugins.declared().items():
            if name not in self._used and (is_source(plugin) or is_extractor(plugin)):
                log.warning("plugin '%s' (%s) is not used: dataLayer.sources does not list it", name, plugin.type)
        return DataLayerParts([_attached(source, extractors) for source, extractors in pairs], discovery)

    def _get(self, path: str, what: str, name: str) -> Any:
        where = self._where(path)
        if not name:
            raise ConfigError(f"{where}: {what} is missing a 'pluginRef'")
        plugin = self._plugins.get(name)
        if plugin is None:
            raise ConfigError(f"{where}: {what} references undefined plugin '{name}'{nearest(name, self._plugins.declared())}")
        self._used.add(name)
        return plugin

    def _written(self, index: int, spec: SourceSpec) -> tuple[Any, list[Any]]:
        path = f"dataLayer.sources[{index}]"
        again = spec.plugin_ref in self._used
        source = self._get(path, "data source", spec.plugin_ref)
        if not is_source(source):
            raise ConfigError(f"{self._where(path)}: '{source.name}' ({source.type}) is not a data source")
        if again:
            raise ConfigError(f"{self._where(path)}: data source '{source.name}' is listed twice")
        interval_s = getattr(source, "interval_s", None)  # of a plugin's own making; fairlead's check theirs
        if interval_s is not None and not MIN_INTERVAL_S <= interval_s < math.inf:
            raise ConfigError(f"{self._where(path)}: '{source.name}': interval_s is {interval_s!r}, expected at least {MIN_INTERVAL_S} s")
        extractors: list[Any] = []
        for j, ref in enumerate(spec.extractors):
            here = f"{path}.extractors[{j}]"
            extractor = self._get(here, "extractor", ref.plugin_ref)
            if not is_extractor(extractor):
                raise ConfigError(f"{self._where(here)}: '{extractor.name}' ({extractor.type}) is not an extractor")
            if not _fits(source, extractor):
                raise ConfigError(
                    f"{self._where(here)}: extractor '{extractor.name}' ({extractor.type}) does not fit '{source.name}' ({source.type})"
                )
            if extractor in extractors:
                raise ConfigError(f"{self._where(here)}: extractor '{extractor.name}' is listed twice")
            extractors.append(extractor)
        return source, extractors

    def _inject(self, pairs: list[tuple[Any, list[Any]]]) -> None:
        """What is missing of the defaults: a metrics source, its core extractor, and the extractor of a models source without any."""
        if not any(isinstance(source, MetricsDataSource) for source, _ in pairs):
            pairs.append((self._declared_or_default(MetricsDataSource), []))
        if not any(isinstance(e, CoreMetricsExtractor) for _, extractors in pairs for e in extractors):
            metrics = next(extractors for source, extractors in pairs if isinstance(source, MetricsDataSource))
            metrics.insert(0, self._declared_or_default(CoreMetricsExtractor))
        for source, extractors in pairs:
            if isinstance(source, ModelsDataSource) and not extractors:
                extractors.append(self._declared_or_default(ModelsDataExtractor))

    def _declared_or_default(self, cls: type[Any]) -> Any:
        for name, plugin in self._plugins.declared().items():
            if isinstance(plugin, cls) and name not in self._used:
                self._used.add(name)
                return plugin
        return self._plugins.default(cls.type)

    def _discovery(self) -> DiscoveryPlugin | None:
        if self._spec.discovery is None:
            return None
        path = "dataLayer.discovery"
        plugin = self._get(path, "discovery", self._spec.discovery.plugin_ref)
        if not isinstance(plugin, DiscoveryPlugin):
            raise ConfigError(f"{self._where(path)}: '{plugin.name}' ({plugin.type}) is not a discovery plugin")
        return plugin


def _fits(source: Any, extractor: Any) -> bool:
    if isinstance(source, EndpointNotificationSource):
        return isinstance(extractor, EndpointEventExtractor)
    if isinstance(extractor, CoreMetricsExtractor):
        return isinstance(source, MetricsDataSource)
    return isinstance(extractor, Extractor)


def _attached(source: Any, extractors: Sequence[Any]) -> AttachedSource:
    core = next((e for e in extractors if isinstance(e, CoreMetricsExtractor)), None)
    if isinstance(source, EndpointNotificationSource):
        return AttachedSource(source, event_extractors=extractors)
    return AttachedSource(source, core, [e for e in extractors if e is not core])
