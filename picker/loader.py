"""From a configuration to the parts of a pipeline: every plugin built once, defaults filled in, references checked."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from msgspec.structs import asdict

from picker import catalogue
from picker.admission.flow.settings import FlowSettings
from picker.admission.saturation import Shedding, UtilizationDetector
from picker.config import REFERENCE, EndpointPickerConfig, FlowControlSpec, PluginSpec, decode, gate, plugin_name
from picker.data_layer import data_layer
from picker.data_order import in_order, missing_defaults
from picker.datalayer.parts import DataLayerParts
from picker.errors import ConfigError
from picker.exchange import ResponsePlugins
from picker.flow_loader import flow_settings
from picker.foreign.finder import Finder
from picker.foreign.guard import Guard
from picker.metrics import Metrics
from picker.naming import current
from picker.plugin import (
    Admitter,
    AsyncDataProducer,
    DataProducer,
    EndpointWatcher,
    Parser,
    PreRequest,
    RequestHeaderProcessor,
    SaturationDetector,
    Screener,
)
from picker.preparation.prepare import Preparation
from picker.profile_loader import scheduling
from picker.registry import Registry, nearest
from picker.scheduling.conditional import ConditionalDecode
from picker.scheduling.producers import ApproxPrefixCacheProducer
from picker.scheduling.sessions import share_sessions
from picker.stages import Stages
from picker.yaml_source import YamlSource

log = logging.getLogger(__name__)


class Asked(NamedTuple):
    """What a plugin asked for while it was built (`picker.plugin.Handle`), and what it was given."""

    name: str
    type: str
    plugin: Any


@dataclass(frozen=True, slots=True)
class Built:
    """A plugin, its decoded parameters, and what it asked for."""

    plugin: Any
    parameters: Any
    asked: tuple[Asked, ...]


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
        self._asked: dict[str, list[Asked]] = {}
        """What each plugin asked for while it was built."""

    def plugin(self, name: str, fallback_type: str) -> Any:
        """Part of `picker.plugin.Handle`."""
        asker = self._building[-1]
        plugin = self._get(name) if name else self._first(fallback_type)
        if plugin is None and name in ("", fallback_type):
            plugin = self._make_default(fallback_type)
        if plugin is None and not fallback_type and name in self._registry:
            plugin = self._make_default(name)
        if plugin is None:
            raise ConfigError(f"{self.place_of(asker)}: '{asker}' references undefined plugin '{name}'{self._nearest(name)}")
        if fallback_type and plugin.type != fallback_type:
            raise ConfigError(f"{self.place_of(asker)}: '{asker}' needs a {fallback_type}, but '{name}' is a {plugin.type}")
        self._asked[asker].append(Asked(name, fallback_type, plugin))
        return plugin

    def _first(self, type_: str) -> Any:
        """The first plugin of this type that is written; None when there is none."""
        found = [name for name, (_, spec) in self._specs.items() if current(spec.type) == type_]
        return self._get(found[0]) if found else None

    def place_of(self, name: str) -> str:
        """Where the plugin of this name is written."""
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
            raise ConfigError(f"{self.place_of(name)}: dependency cycle: {' -> '.join([*self._building, name])}")
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
                if cls.type in self._registry and (connect := getattr(plugin, "connect", None)) is not None:
                    connect(self._metrics, as_reference=self._config.compat == REFERENCE)
        finally:
            self._building.pop()
        self._made[name] = Built(plugin, decoded, tuple(self._asked[name]))
        return plugin

    def _taken_over(self, name: str, cls: type[Any], decoded: Any) -> Any:
        """The plugin of this name from before, if it would come out the same: its class, its parameters and the plugins it asked for."""
        # By their values: the parameters of a foreign plugin are of another class each time (they have `guard` added to them).
        old = self._before.get(name)
        if old is None or old.plugin.type != cls.type or asdict(old.parameters) != asdict(decoded):
            return None
        if any(self.plugin(asked.name, asked.type) is not asked.plugin for asked in old.asked):
            return None
        return old.plugin

    def _make_default(self, type_: str) -> Any:
        """The plugin that is there although the configuration does not mention it."""
        known = self._made[type_].plugin if type_ in self._made else None
        if known is None:
            return self._make(PluginSpec(type=type_), lambda path: f"default plugin {type_}: {path}")
        if known.type != type_:
            raise ConfigError(f"{self.place_of(type_)}: a {known.type} has the name of the default {type_}; give it another one")
        return known

    def _goes_on(self, name: str) -> bool:
        """The plugin of this name is the one from before."""
        return name in self._made and name in self._before and self._made[name].plugin is self._before[name].plugin

    def made(self) -> dict[str, Any]:
        """All there are by now, by name."""
        return {name: built.plugin for name, built in self._made.items()}

    def pipeline(self) -> Pipeline:
        """Everything, checked."""
        for name in self._specs:
            self._get(name)
        scheduler = scheduling(self._config, self, self._source, self._metrics)
        detector = self._detector()
        parsers = self._parsers()
        flow = self._flow(detector)
        data = data_layer(self._config.data_layer, self, self._source.where)
        while missing := missing_defaults(list(self.made().values())):
            self._make_default(missing[0])
        plugins = list(self.made().values())
        ordered = in_order(plugins, self.place_of)
        asking = [p for p in ordered if isinstance(p, AsyncDataProducer) and getattr(p, "asks", True)]
        producers = [p for p in plugins if isinstance(p, ApproxPrefixCacheProducer)]
        share_sessions(plugins)
        preparation = Preparation(asking, self._metrics) if asking else None
        return Pipeline(
            stages=Stages(
                parsers,
                Shedding(detector),
                scheduler,
                self._metrics,
                request_header=[p for p in ordered if isinstance(p, RequestHeaderProcessor)],
                prepare=preparation,
                screeners=[p for p in plugins if isinstance(p, Screener)],
                producers=[p for p in ordered if isinstance(p, DataProducer)],
                admitters=[p for p in plugins if isinstance(p, Admitter)],
                conditional=ConditionalDecode(producers[0]) if producers else None,
                pre_request=[p for p in plugins if isinstance(p, PreRequest)],
                response=ResponsePlugins.among(plugins, self._metrics),
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
        """Part of `picker.data_layer.Plugins` and `picker.profile_loader.Plugins`, as are `default`, `declared`, `made` and `place_of`."""
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

    def _parsers(self) -> list[Parser]:
        spec = self._config.request_handler
        refs = [(f"requestHandler.parsers[{i}]", r.plugin_ref) for i, r in enumerate(spec.parsers)] if spec else []
        if self._config.parser is not None:
            if refs:
                raise ConfigError(f"{self._source.where('parser')}: give requestHandler.parsers or the deprecated parser, not both")
            log.warning("%s: 'parser' is deprecated; use requestHandler.parsers", self._source.source)
            refs = [("parser", self._config.parser.plugin_ref)]
        if not refs:
            declared = [p for p in self.made().values() if isinstance(p, Parser)]
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
            declared = [p for p in self.made().values() if isinstance(p, SaturationDetector)]
            return declared[0] if declared else self._make_default(UtilizationDetector.type)
        plugin = self._get(name)
        if plugin is None and name == UtilizationDetector.type:  # the field's default, spelt out
            plugin = self._make_default(name)
        if plugin is None:
            raise ConfigError(f"{self._source.where(path)}: saturation detector references undefined plugin '{name}'{self._nearest(name)}")
        if not isinstance(plugin, SaturationDetector):
            raise ConfigError(f"{self._source.where(path)}: '{name}' ({plugin.type}) is not a saturation detector")
        return plugin
