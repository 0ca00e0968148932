"""The scheduling profiles of a configuration, made into a scheduler with the plugins they name (contract section 3)."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any, Protocol

from picker.config import EndpointPickerConfig, ProfileSpec, WeightedRef
from picker.errors import ConfigError
from picker.metrics import Metrics
from picker.plugin import Filter, Picker, ProfileHandler, Scorer
from picker.registry import nearest
from picker.scheduling.handlers import HeaderProfileHandler, OneProfile, SingleProfileHandler
from picker.scheduling.pickers import MaxScorePicker
from picker.scheduling.profile import Profile, WeightedScorer
from picker.scheduling.scheduler import Scheduler
from picker.yaml_source import YamlSource

log = logging.getLogger(__name__)


class Plugins(Protocol):
    """The plugins of the configuration."""

    def get(self, name: str) -> Any:
        """The plugin of this name; None when the configuration has none."""

    def default(self, type_: str) -> Any:
        """The plugin that is there although the configuration does not mention it."""

    def declared(self) -> dict[str, Any]:
        """All that were written, by name."""

    def made(self) -> dict[str, Any]:
        """All there are by now, by name."""

    def place_of(self, name: str) -> str:
        """Where the plugin of this name is written."""


def scheduling(config: EndpointPickerConfig, plugins: Plugins, source: YamlSource, metrics: Metrics) -> Scheduler:
    """Raises ConfigError."""
    return _Profiles(config, plugins, source, metrics).scheduler()


class _Profiles:
    def __init__(self, config: EndpointPickerConfig, plugins: Plugins, source: YamlSource, metrics: Metrics) -> None:
        self._config = config
        self._plugins = plugins
        self._source = source
        self._metrics = metrics

    def scheduler(self) -> Scheduler:
        """All profiles, and who chooses among them."""
        profiles = {spec.name: self._profile(i, spec) for i, spec in enumerate(self._specs())}
        return Scheduler(self._handler(profiles), profiles, self._metrics)

    def _specs(self) -> Sequence[ProfileSpec]:
        if self._config.scheduling_profiles:
            return self._config.scheduling_profiles
        usable = tuple([WeightedRef(name) for name, plugin in self._plugins.made().items() if isinstance(plugin, Filter | Scorer | Picker)])
        return (ProfileSpec("default", usable),)

    def _profile(self, index: int, spec: ProfileSpec) -> Profile:
        filters: list[Filter] = []
        scorers: list[WeightedScorer] = []
        picker: Picker | None = None
        for j, ref in enumerate(spec.plugins):
            name = ref.plugin_ref
            written = bool(self._config.scheduling_profiles)
            where = self._source.where(f"schedulingProfiles[{index}].plugins[{j}]") if written else self._plugins.place_of(name)
            plugin = self._plugins.get(name)
            if plugin is None:
                known = nearest(name, self._plugins.declared())
                raise ConfigError(f"{where}: scheduling profile '{spec.name}' references undefined plugin '{name}'{known}")
            if isinstance(plugin, Picker):
                if picker is not None:
                    raise ConfigError(f"{where}: profile '{spec.name}': already have a registered picker")
                picker = plugin
            elif not isinstance(plugin, Filter | Scorer):
                # The reference takes it, e.g. a reporter: a profile is where its users look for plugins.
                log.warning("%s: '%s' (%s) is no filter, scorer or picker; listing it in a profile has no effect", where, name, plugin.type)
            if isinstance(plugin, Filter):
                filters.append(plugin)
            if isinstance(plugin, Scorer):
                scorers.append(WeightedScorer(plugin, 1.0 if ref.weight is None else ref.weight))
            elif ref.weight is not None:
                where = self._source.where(f"schedulingProfiles[{index}].plugins[{j}].weight")
                raise ConfigError(f"{where}: only a scorer has a weight; '{name}' is a {plugin.type}")
        if picker is None:
            declared = [p for p in self._plugins.made().values() if isinstance(p, Picker)]
            picker = declared[0] if declared else self._plugins.default(MaxScorePicker.type)
        return Profile(spec.name, filters, scorers, picker, self._metrics)

    def _handler(self, profiles: dict[str, Profile]) -> ProfileHandler:
        handlers = [p for p in self._plugins.made().values() if isinstance(p, ProfileHandler)]
        if len(handlers) > 1:
            raise ConfigError(f"{self._source.where('plugins')}: multiple profile handlers found: {', '.join(h.name for h in handlers)}")
        if not handlers and len(profiles) > 1:
            raise ConfigError(f"{self._source.where('schedulingProfiles')}: no profile handler configured for {len(profiles)} profiles")
        handler: ProfileHandler = handlers[0] if handlers else self._plugins.default(SingleProfileHandler.type)
        if isinstance(handler, OneProfile) and len(profiles) > 1:
            what = f"{type(handler).__name__} cannot support multiple scheduling profiles"
            raise ConfigError(f"{self._source.where('schedulingProfiles')}: {what}")
        if isinstance(handler, HeaderProfileHandler) and handler.default not in profiles:
            known = ", ".join(profiles)
            place = self._plugins.place_of(handler.name)
            raise ConfigError(f"{place}.parameters.defaultProfile: '{handler.default}' is not one of the scheduling profiles: {known}")
        return handler
