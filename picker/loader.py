"""From a configuration to the parts of a pipeline: every plugin built once, defaults filled in, references checked."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from picker import catalogue
from picker.admission.saturation import Shedding, UtilizationDetector
from picker.config import REFERENCE, EndpointPickerConfig, PluginSpec, ProfileSpec, WeightedRef, decode, plugin_name
from picker.director import Stages
from picker.errors import ConfigError
from picker.exchange import ResponsePlugins
from picker.metrics import Metrics
from picker.plugin import (
    Admitter,
    DataProducer,
    EndpointWatcher,
    Filter,
    Parser,
    Picker,
    PreRequest,
    ProfileHandler,
    RequestHeaderProcessor,
    SaturationDetector,
    Scorer,
    Screener,
)
from picker.registry import Registry, nearest
from picker.scheduling.handlers import SingleProfileHandler
from picker.scheduling.pickers import MaxScorePicker
from picker.scheduling.producers import ApproxPrefixCacheProducer
from picker.scheduling.profile import Profile, WeightedScorer
from picker.scheduling.scheduler import Scheduler
from picker.yaml_source import YamlSource

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Pipeline:
    """What the director calls, stage by stage, and what else is to be told of things. `as_reference`: `compat: reference` is set."""

    stages: Stages
    watchers: Sequence[EndpointWatcher]
    producers: Sequence[ApproxPrefixCacheProducer]
    detector: SaturationDetector
    as_reference: bool


def load(source: YamlSource, metrics: Metrics, *, prefix_index_bytes: int = 0) -> Pipeline:
    """`prefix_index_bytes` is shared out evenly among the prefix cache producers; 0 is no limit.

    Raises ConfigError naming the place in the configuration.
    """
    pipeline = _Loader(source, decode(source), metrics).pipeline()
    if prefix_index_bytes:
        for producer in pipeline.producers:
            producer.index.limit_bytes = prefix_index_bytes // len(pipeline.producers)
    return pipeline


class _Loader:
    """Builds plugins on demand, so that one plugin can ask for another (`Handle.plugin`), whatever the order in the file."""

    def __init__(self, source: YamlSource, config: EndpointPickerConfig, metrics: Metrics) -> None:
        self._source = source
        self._config = config
        self._metrics = metrics
        self._registry: Registry = catalogue.registry()
        self._specs = {plugin_name(spec): (i, spec) for i, spec in enumerate(config.plugins)}
        self._built: dict[str, Any] = {}
        self._building: list[str] = []

    def plugin(self, name: str, fallback_type: str) -> Any:
        """Part of `picker.plugin.Handle`."""
        asker = self._building[-1]
        plugin = self._get(name)
        if plugin is None and name == fallback_type:
            plugin = self._make_default(fallback_type)
        if plugin is None:
            raise ConfigError(f"{self._place_of(asker)}: '{asker}' references undefined plugin '{name}'{self._nearest(name)}")
        if plugin.type != fallback_type:
            raise ConfigError(f"{self._place_of(asker)}: '{asker}' needs a {fallback_type}, but '{name}' is a {plugin.type}")
        return plugin

    def _place_of(self, name: str) -> str:
        return self._source.where(f"plugins[{self._specs[name][0]}]" if name in self._specs else "plugins")

    def _nearest(self, name: str) -> str:
        return nearest(name, self._specs)

    def _get(self, name: str) -> Any:
        """The configured plugin of this name, built if need be; None when the configuration has none."""
        if name in self._built:
            return self._built[name]
        if name not in self._specs:
            return None
        index, spec = self._specs[name]
        if name in self._building:
            raise ConfigError(f"{self._place_of(name)}: dependency cycle: {' -> '.join([*self._building, name])}")
        return self._make(spec, lambda path: self._source.where(f"plugins[{index}].{path}"))

    def _make(self, spec: PluginSpec, where: Callable[[str], str]) -> Any:
        name = plugin_name(spec)
        self._building.append(name)
        try:
            plugin = self._registry.build(spec.type, name, spec.parameters, self, where)
        finally:
            self._building.pop()
        self._built[name] = plugin
        return plugin

    def _make_default(self, type_: str) -> Any:
        """The plugin that is there although the configuration does not mention it."""
        known = self._built.get(type_)
        if known is None:
            return self._make(PluginSpec(type=type_), lambda path: f"default plugin {type_}: {path}")
        if known.type != type_:
            raise ConfigError(f"{self._place_of(type_)}: a {known.type} has the name of the default {type_}; give it another one")
        return known

    def pipeline(self) -> Pipeline:
        """Everything, checked."""
        for name in self._specs:
            self._get(name)
        profiles = {spec.name: self._profile(i, spec) for i, spec in enumerate(self._profile_specs())}
        scheduler = Scheduler(self._handler(profiles), profiles, self._metrics)
        detector = self._detector()
        parsers = self._parsers()
        plugins = list(self._built.values())
        producers = [p for p in plugins if isinstance(p, ApproxPrefixCacheProducer)]
        for producer in producers:
            labels = (producer.name, producer.type)
            producer.observe_with(self._metrics.prefix_hit_ratio.cell(*labels), self._metrics.prefix_hit_bytes.cell(*labels))
        return Pipeline(
            stages=Stages(
                parsers,
                Shedding(detector),
                scheduler,
                request_header=[p for p in plugins if isinstance(p, RequestHeaderProcessor)],
                screeners=[p for p in plugins if isinstance(p, Screener)],
                producers=[p for p in plugins if isinstance(p, DataProducer)],
                admitters=[p for p in plugins if isinstance(p, Admitter)],
                pre_request=[p for p in plugins if isinstance(p, PreRequest)],
                response=ResponsePlugins.among(plugins),
            ),
            watchers=[p for p in plugins if isinstance(p, EndpointWatcher)],
            producers=producers,
            detector=detector,
            as_reference=self._config.compat == REFERENCE,
        )

    def _profile_specs(self) -> Sequence[ProfileSpec]:
        if self._config.scheduling_profiles:
            return self._config.scheduling_profiles
        usable = [name for name, plugin in self._built.items() if isinstance(plugin, Filter | Scorer | Picker)]
        return (ProfileSpec("default", tuple([WeightedRef(name) for name in usable])),)

    def _profile(self, index: int, spec: ProfileSpec) -> Profile:
        filters: list[Filter] = []
        scorers: list[WeightedScorer] = []
        picker: Picker | None = None
        for j, ref in enumerate(spec.plugins):
            name = ref.plugin_ref
            written = bool(self._config.scheduling_profiles)
            where = self._source.where(f"schedulingProfiles[{index}].plugins[{j}]") if written else self._place_of(name)
            plugin = self._get(name)
            if plugin is None:
                raise ConfigError(f"{where}: scheduling profile '{spec.name}' references undefined plugin '{name}'{self._nearest(name)}")
            if isinstance(plugin, Picker):
                if picker is not None:
                    raise ConfigError(f"{where}: profile '{spec.name}': already have a registered picker")
                picker = plugin
            elif not isinstance(plugin, Filter | Scorer):
                raise ConfigError(f"{where}: '{name}' ({plugin.type}) is not a filter, scorer or picker")
            if isinstance(plugin, Filter):
                filters.append(plugin)
            if isinstance(plugin, Scorer):
                scorers.append(WeightedScorer(plugin, 1.0 if ref.weight is None else ref.weight))
            elif ref.weight is not None:
                where = self._source.where(f"schedulingProfiles[{index}].plugins[{j}].weight")
                raise ConfigError(f"{where}: only a scorer has a weight; '{name}' is a {plugin.type}")
        if picker is None:
            declared = [p for p in self._built.values() if isinstance(p, Picker)]
            picker = declared[0] if declared else self._make_default(MaxScorePicker.type)
        return Profile(spec.name, filters, scorers, picker, self._metrics)

    def _handler(self, profiles: dict[str, Profile]) -> ProfileHandler:
        handlers = [p for p in self._built.values() if isinstance(p, ProfileHandler)]
        if len(handlers) > 1:
            raise ConfigError(f"{self._source.where('plugins')}: multiple profile handlers found: {', '.join(h.name for h in handlers)}")
        if not handlers and len(profiles) > 1:
            raise ConfigError(f"{self._source.where('schedulingProfiles')}: no profile handler configured for {len(profiles)} profiles")
        handler: ProfileHandler = handlers[0] if handlers else self._make_default(SingleProfileHandler.type)
        if isinstance(handler, SingleProfileHandler) and len(profiles) > 1:
            raise ConfigError(
                f"{self._source.where('schedulingProfiles')}: SingleProfileHandler cannot support multiple scheduling profiles"
            )
        return handler

    def _parsers(self) -> list[Parser]:
        spec = self._config.request_handler
        refs = [(f"requestHandler.parsers[{i}]", r.plugin_ref) for i, r in enumerate(spec.parsers)] if spec else []
        if self._config.parser is not None:
            if refs:
                raise ConfigError(f"{self._source.where('parser')}: give requestHandler.parsers or the deprecated parser, not both")
            log.warning("%s: 'parser' is deprecated; use requestHandler.parsers", self._source.source)
            refs = [("parser", self._config.parser.plugin_ref)]
        if not refs:
            declared = [p for p in self._built.values() if isinstance(p, Parser)]
            return declared or [self._make_default(cls.type) for cls in catalogue.DEFAULT_PARSERS]
        parsers: list[Parser] = []
        for path, name in refs:
            plugin = self._get(name)
            if plugin is None:
                raise ConfigError(f"{self._source.where(path)}: parser references undefined plugin '{name}'{self._nearest(name)}")
            if not isinstance(plugin, Parser):
                raise ConfigError(f"{self._source.where(path)}: '{name}' ({plugin.type}) is not a parser")
            parsers.append(plugin)
        return parsers

    def _detector(self) -> SaturationDetector:
        path, name = "saturationDetector", ""
        flow_control = self._config.flow_control
        if flow_control is not None and flow_control.saturation_detector is not None:
            if self._config.saturation_detector is not None:
                where = self._source.where("saturationDetector")
                raise ConfigError(f"{where}: give flowControl.saturationDetector or the deprecated saturationDetector, not both")
            path, name = "flowControl.saturationDetector", flow_control.saturation_detector.plugin_ref
        elif self._config.saturation_detector is not None:
            log.warning("%s: top-level 'saturationDetector' is deprecated; use flowControl.saturationDetector", self._source.source)
            name = self._config.saturation_detector.plugin_ref
        if not name:
            declared = [p for p in self._built.values() if isinstance(p, SaturationDetector)]
            return declared[0] if declared else self._make_default(UtilizationDetector.type)
        plugin = self._get(name)
        if plugin is None and name == UtilizationDetector.type:  # the field's default, spelt out
            plugin = self._make_default(name)
        if plugin is None:
            raise ConfigError(f"{self._source.where(path)}: saturation detector references undefined plugin '{name}'{self._nearest(name)}")
        if not isinstance(plugin, SaturationDetector):
            raise ConfigError(f"{self._source.where(path)}: '{name}' ({plugin.type}) is not a saturation detector")
        return plugin
