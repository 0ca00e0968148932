"""From a configuration to the parts of a pipeline: every plugin built once, defaults filled in, references checked."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from picker import catalogue
from picker.accounting.attribute_reporter import RequestAttributeReporter
from picker.admission.flow.settings import FlowSettings
from picker.admission.probabilistic import ProbabilisticAdmitter
from picker.admission.saturation import Shedding, UtilizationDetector
from picker.config import REFERENCE, EndpointPickerConfig, FlowControlSpec, PluginSpec, ProfileSpec, WeightedRef, decode, gate, plugin_name
from picker.data_layer import data_layer
from picker.datalayer.parts import DataLayerParts
from picker.errors import ConfigError, Internal
from picker.exchange import ResponsePlugins
from picker.flow_loader import flow_settings
from picker.foreign.finder import Finder
from picker.foreign.guard import Guard
from picker.keys import DEFAULT_PRODUCERS
from picker.metrics import Metrics
from picker.plugin import (
    Admitter,
    AsyncDataProducer,
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
from picker.preparation.prepare import Preparation
from picker.registry import Registry, nearest
from picker.scheduling.handlers import SingleProfileHandler
from picker.scheduling.inflight_load import InflightLoadProducer
from picker.scheduling.media_cache import MediaCacheProducer
from picker.scheduling.pickers import MaxScorePicker
from picker.scheduling.producers import ApproxPrefixCacheProducer
from picker.scheduling.profile import Profile, WeightedScorer
from picker.scheduling.scheduler import Scheduler
from picker.stages import Stages
from picker.yaml_source import YamlSource

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Built:
    """A plugin, its decoded parameters, and what it asked for: names and types."""

    plugin: Any
    parameters: Any
    asked: tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True)
class Pipeline:
    """What the director calls, stage by stage, and what else is to be told of things. `as_reference`: `compat: reference` is set."""

    stages: Stages
    watchers: Sequence[EndpointWatcher]
    producers: Sequence[ApproxPrefixCacheProducer]
    detector: SaturationDetector
    as_reference: bool
    flow: FlowSettings | None
    """None: no queues."""
    built: Mapping[str, Built]
    """All plugins by name, in the order in which they were made."""
    config: EndpointPickerConfig
    preparation: Preparation | None
    """To be closed when the pipeline is of no more use."""
    data: DataLayerParts
    guards: Sequence[Guard] = ()
    """Of the foreign plugins."""


@dataclass(frozen=True, slots=True)
class Options:
    """What a configuration is loaded with besides itself. `prefix_index_bytes` is shared out evenly among the prefix cache producers; 0 is
    no limit. `refresh_s`: how often model servers are asked for metrics."""

    prefix_index_bytes: int = 0
    refresh_s: float = 0.05
    experimental: bool = False
    plugin_paths: Sequence[Path] = ()
    """Directories with plugin modules."""


def load(source: YamlSource, metrics: Metrics, options: Options = Options(), before: Pipeline | None = None) -> Pipeline:
    """Plugins whose entry is the same as in `before` are taken over, with all they know.

    Raises ConfigError naming the place in the configuration.
    """
    pipeline = _Loader(source, decode(source), metrics, options, before).pipeline()
    if options.prefix_index_bytes:
        for producer in pipeline.producers:
            producer.index.limit_bytes = options.prefix_index_bytes // len(pipeline.producers)
    return pipeline


class _Loader:
    """Builds plugins on demand, so that one plugin can ask for another (`Handle.plugin`), whatever the order in the file."""

    def __init__(
        self, source: YamlSource, config: EndpointPickerConfig, metrics: Metrics, options: Options, before: Pipeline | None
    ) -> None:
        self._source = source
        self._options = options
        self._config = config
        self._metrics = metrics
        self._before: Mapping[str, Built] = {} if before is None else before.built
        self._guards: list[Guard] = [] if before is None else list(before.guards)
        """Of foreign plugins that may go on."""
        self._registry: Registry = catalogue.registry()
        self._foreign = Finder(metrics, options.plugin_paths)
        self._registry.add_foreign(self._foreign)
        self._specs = {plugin_name(spec): (i, spec) for i, spec in enumerate(config.plugins)}
        self._made: dict[str, Built] = {}
        self._building: list[str] = []
        self._asked: dict[str, list[tuple[str, str]]] = {}
        """What each plugin asked for while it was built."""

    def plugin(self, name: str, fallback_type: str) -> Any:
        """Part of `picker.plugin.Handle`."""
        asker = self._building[-1]
        self._asked[asker].append((name, fallback_type))
        plugin = self._get(name)
        if plugin is None and (name == fallback_type or (not fallback_type and name in self._registry)):
            plugin = self._make_default(name)
        if plugin is None:
            raise ConfigError(f"{self._place_of(asker)}: '{asker}' references undefined plugin '{name}'{self._nearest(name)}")
        if fallback_type and plugin.type != fallback_type:
            raise ConfigError(f"{self._place_of(asker)}: '{asker}' needs a {fallback_type}, but '{name}' is a {plugin.type}")
        return plugin

    def _place_of(self, name: str) -> str:
        return self._source.where(f"plugins[{self._specs[name][0]}]" if name in self._specs else "plugins")

    def _nearest(self, name: str) -> str:
        return nearest(name, self._specs)

    def _get(self, name: str) -> Any:
        """The configured plugin of this name, built if need be; None when the configuration has none."""
        if name in self._made:
            return self._made[name].plugin
        if name not in self._specs:
            return None
        index, spec = self._specs[name]
        if name in self._building:
            raise ConfigError(f"{self._place_of(name)}: dependency cycle: {' -> '.join([*self._building, name])}")
        return self._make(spec, lambda path: self._source.where(f"plugins[{index}].{path}"))

    def _make(self, spec: PluginSpec, where: Callable[[str], str]) -> Any:
        name = plugin_name(spec)
        cls = self._registry.find(spec.type, where, experimental=self._options.experimental)
        decoded = self._registry.decode(cls, spec.parameters, where)
        self._building.append(name)
        self._asked[name] = []
        try:
            plugin = self._taken_over(name, cls, decoded)
            if plugin is None:
                self._asked[name] = []
                plugin = self._registry.build(cls, name, decoded, self, where)
        finally:
            self._building.pop()
        self._made[name] = Built(plugin, decoded, tuple(self._asked[name]))
        return plugin

    def _taken_over(self, name: str, cls: type[Any], decoded: Any) -> Any:
        """The plugin of this name from before, if it would come out the same: its class, its parameters and the plugins it asked for."""
        old = self._before.get(name)
        if old is None or old.plugin.type != cls.type or old.parameters != decoded:
            return None
        for asked, fallback_type in old.asked:
            known = self._before.get(asked)
            if known is None or self.plugin(asked, fallback_type) is not known.plugin:
                return None
        return old.plugin

    def _make_default(self, type_: str) -> Any:
        """The plugin that is there although the configuration does not mention it."""
        known = self._made[type_].plugin if type_ in self._made else None
        if known is None:
            return self._make(PluginSpec(type=type_), lambda path: f"default plugin {type_}: {path}")
        if known.type != type_:
            raise ConfigError(f"{self._place_of(type_)}: a {known.type} has the name of the default {type_}; give it another one")
        return known

    def _goes_on(self, name: str) -> bool:
        """The plugin of this name is the one from before."""
        return name in self._made and name in self._before and self._made[name].plugin is self._before[name].plugin

    def _plugins(self) -> list[Any]:
        return [built.plugin for built in self._made.values()]

    def pipeline(self) -> Pipeline:
        """Everything, checked."""
        for name in self._specs:
            self._get(name)
        profiles = {spec.name: self._profile(i, spec) for i, spec in enumerate(self._profile_specs())}
        scheduler = Scheduler(self._handler(profiles), profiles, self._metrics)
        detector = self._detector()
        parsers = self._parsers()
        flow = self._flow(detector)
        data = data_layer(self._config.data_layer, self, self._source.where)
        self._make_default_producers()
        plugins = self._plugins()
        producers = [p for p in plugins if isinstance(p, ApproxPrefixCacheProducer)]
        for producer in producers:
            labels = (producer.name, producer.type)
            producer.observe_with(self._metrics.prefix_hit_ratio.cell(*labels), self._metrics.prefix_hit_bytes.cell(*labels))
        for plugin in plugins:
            if isinstance(plugin, InflightLoadProducer):
                plugin.prefix = plugin.prefix or producers[0]  # consumed, hence made if nobody configured one
            if isinstance(plugin, ProbabilisticAdmitter) and self._config.compat == REFERENCE:
                plugin.refuse = Internal
            if isinstance(plugin, MediaCacheProducer):
                plugin.observe_with(self._metrics)
            if isinstance(plugin, RequestAttributeReporter):
                plugin.failures = self._metrics.attribute_errors.cell(plugin.name)
        asking = [p for p in plugins if isinstance(p, AsyncDataProducer) and getattr(p, "asks", True)]
        preparation = Preparation(asking, self._metrics) if asking else None
        return Pipeline(
            stages=Stages(
                parsers,
                Shedding(detector),
                scheduler,
                request_header=[p for p in plugins if isinstance(p, RequestHeaderProcessor)],
                prepare=preparation,
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
            flow=flow,
            built=dict(self._made),
            config=self._config,
            preparation=preparation,
            data=data,
            guards=[*[g for g in self._guards if self._goes_on(g.name)], *self._foreign.guards],
        )

    def get(self, name: str) -> Any:
        """Part of `picker.data_layer.Plugins`, as are `default` and `declared`."""
        return self._get(name)

    def default(self, type_: str) -> Any:
        """The plugin of this type that is there although the configuration does not mention it."""
        return self._make_default(type_)

    def declared(self) -> dict[str, Any]:
        """All that were written, by name."""
        return {name: self._made[name].plugin for name in self._specs if name in self._made}

    def _flow(self, detector: SaturationDetector) -> FlowSettings | None:
        spec = self._config.flow_control
        if not gate(self._config, "flowControl"):
            if spec is not None and spec != FlowControlSpec(saturation_detector=spec.saturation_detector):
                log.warning("%s has no effect: the feature gate flowControl is not on", self._source.where("flowControl"))
            return None
        return flow_settings(
            spec or FlowControlSpec(),
            self,
            detector,
            lambda path: self._source.where(f"flowControl.{path}"),
            refresh_s=self._options.refresh_s,
            as_reference=self._config.compat == REFERENCE,
        )

    def named(self, name: str, kind: Any, what: str, where: str) -> Any:
        """Part of `picker.flow_loader.Plugins`."""
        plugin = self._get(name)
        if plugin is None and name in self._registry:
            plugin = self._make_default(name)
        if plugin is None:
            raise ConfigError(f"{where}: references undefined plugin '{name}'{self._nearest(name)}")
        if not isinstance(plugin, kind):
            raise ConfigError(f"{where}: '{name}' ({plugin.type}) is not {what}")
        return plugin

    def _make_default_producers(self) -> None:
        """Of what some plugin consumes and none produces."""
        while True:
            plugins = self._plugins()
            produced = {key for plugin in plugins for key in getattr(plugin, "produces", ())}
            consumed = {key for plugin in plugins for key in getattr(plugin, "consumes", ())}
            missing = sorted((consumed - produced) & DEFAULT_PRODUCERS.keys())
            if not missing:
                return
            self._make_default(DEFAULT_PRODUCERS[missing[0]])

    def _profile_specs(self) -> Sequence[ProfileSpec]:
        if self._config.scheduling_profiles:
            return self._config.scheduling_profiles
        usable = [name for name, plugin in ((n, b.plugin) for n, b in self._made.items()) if isinstance(plugin, Filter | Scorer | Picker)]
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
            declared = [p for p in self._plugins() if isinstance(p, Picker)]
            picker = declared[0] if declared else self._make_default(MaxScorePicker.type)
        return Profile(spec.name, filters, scorers, picker, self._metrics)

    def _handler(self, profiles: dict[str, Profile]) -> ProfileHandler:
        handlers = [p for p in self._plugins() if isinstance(p, ProfileHandler)]
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
            declared = [p for p in self._plugins() if isinstance(p, Parser)]
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
            declared = [p for p in self._plugins() if isinstance(p, SaturationDetector)]
            return declared[0] if declared else self._make_default(UtilizationDetector.type)
        plugin = self._get(name)
        if plugin is None and name == UtilizationDetector.type:  # the field's default, spelt out
            plugin = self._make_default(name)
        if plugin is None:
            raise ConfigError(f"{self._source.where(path)}: saturation detector references undefined plugin '{name}'{self._nearest(name)}")
        if not isinstance(plugin, SaturationDetector):
            raise ConfigError(f"{self._source.where(path)}: '{name}' ({plugin.type}) is not a saturation detector")
        return plugin
