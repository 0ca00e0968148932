"""`EndpointPickerConfig`: the configuration file of the reference picker, decoded strictly into frozen structs.

Contract section 3. What this version cannot do yet is refused by name: nothing that is written in a configuration is ignored.
"""

from __future__ import annotations

import logging
from typing import Any

import msgspec

from picker.errors import ConfigError
from picker.registry import nearest
from picker.yaml_source import YamlSource

log = logging.getLogger(__name__)

API_VERSIONS = ("llm-d.ai/v1alpha1", "inference.networking.x-k8s.io/v1alpha1")
KIND = "EndpointPickerConfig"
REFERENCE = "reference"
COMPATS = ("", REFERENCE)
FEATURE_GATES = {"flowControl": False, "haPopulateNonLeaderDatastore": True}


class _Strict(msgspec.Struct, frozen=True, forbid_unknown_fields=True, rename="camel"):
    pass


class PluginSpec(_Strict, frozen=True):
    """One entry of `plugins`; `name` defaults to `type`."""

    type: str = ""
    name: str = ""
    parameters: dict[str, Any] | None = None


class PluginRef(_Strict, frozen=True):
    """Names a plugin."""

    plugin_ref: str = ""


class WeightedRef(_Strict, frozen=True):
    """Names a plugin of a profile; the weight counts for scorers."""

    plugin_ref: str = ""
    weight: float | None = None


class ProfileSpec(_Strict, frozen=True):
    """One entry of `schedulingProfiles`."""

    name: str = ""
    plugins: tuple[WeightedRef, ...] = ()


class RequestHandlerSpec(_Strict, frozen=True):
    """Which parsers, in which order."""

    parsers: tuple[PluginRef, ...] = ()


class SourceSpec(_Strict, frozen=True):
    """One entry of `dataLayer.sources`."""

    plugin_ref: str = ""
    extractors: tuple[PluginRef, ...] = ()


class DataLayerSpec(_Strict, frozen=True):
    """Where endpoints and their metrics come from."""

    inject_defaults: bool = True
    sources: tuple[SourceSpec, ...] = ()
    discovery: PluginRef | None = None
    peer_discovery: PluginRef | None = None
    cross_replica_syncer_plugin_ref: str | None = None
    cross_replica_sync_interval: str | None = None


class PriorityBandSpec(_Strict, frozen=True):
    """The queues of one priority. `weight` is fairlead's own: bands that have one share what there is in proportion to it."""

    priority: int = 0
    max_bytes: int | str | None = None
    max_requests: int | str | None = None
    fairness_policy_ref: str = ""
    ordering_policy_ref: str = ""
    weight: float | None = None


class FlowControlSpec(_Strict, frozen=True):
    """Queues. All but `saturation_detector` counts with the feature gate `flowControl` only."""

    max_bytes: int | str | None = None
    max_requests: int | str | None = None
    default_request_ttl: str | None = msgspec.field(default=None, name="defaultRequestTTL")
    no_endpoint_request_ttl: str | None = msgspec.field(default=None, name="noEndpointRequestTTL")
    default_priority_band: PriorityBandSpec | None = None
    default_negative_priority_band: PriorityBandSpec | None = None
    priority_bands: tuple[PriorityBandSpec, ...] = ()
    usage_limit_policy_plugin_ref: str = ""
    saturation_detector: PluginRef | None = None
    enable_eviction: bool = False


class EndpointPickerConfig(_Strict, frozen=True):
    """The whole document."""

    api_version: str
    kind: str
    feature_gates: tuple[str, ...] = ()
    plugins: tuple[PluginSpec, ...] = ()
    scheduling_profiles: tuple[ProfileSpec, ...] = ()
    data_layer: DataLayerSpec | None = None
    flow_control: FlowControlSpec | None = None
    request_handler: RequestHandlerSpec | None = None
    saturation_detector: PluginRef | None = None
    parser: PluginRef | None = None
    compat: str = ""
    """`reference`: behave as the reference picker does where fairlead has a way of its own; see docs/configuration.md."""


DEFAULT_TEXT = """\
apiVersion: llm-d.ai/v1alpha1
kind: EndpointPickerConfig
plugins:
- type: queue-scorer
- type: kv-cache-utilization-scorer
- type: prefix-cache-scorer
schedulingProfiles:
- name: default
  plugins:
  - pluginRef: queue-scorer
    weight: 2
  - pluginRef: kv-cache-utilization-scorer
    weight: 2
  - pluginRef: prefix-cache-scorer
    weight: 3
"""


def default_source() -> YamlSource:
    """What runs when no configuration is given: the reference's default."""
    return YamlSource(DEFAULT_TEXT, "built-in default")


def decode(source: YamlSource) -> EndpointPickerConfig:
    """Raises ConfigError: unknown fields, wrong types, undefined references, and everything this version cannot do."""
    config = source.decode(EndpointPickerConfig)
    if config.api_version not in API_VERSIONS:
        raise ConfigError(f"{source.where('apiVersion')}: '{config.api_version}' is not known; expected {' or '.join(API_VERSIONS)}")
    if config.api_version != API_VERSIONS[0]:
        log.warning("%s: '%s' is deprecated; use %s", source.where("apiVersion"), config.api_version, API_VERSIONS[0])
    if config.kind != KIND:
        raise ConfigError(f"{source.where('kind')}: '{config.kind}' is not known; expected {KIND}")
    if config.compat not in COMPATS:
        raise ConfigError(f"{source.where('compat')}: '{config.compat}' is not known; expected {REFERENCE}, or no compat at all")
    _check_gates(source, config)
    _check_plugins(source, config)
    _check_profiles(source, config)
    _refuse_later_features(source, config)
    return config


def gate(config: EndpointPickerConfig, name: str) -> bool:
    """Whether a feature gate is open; of a gate that is given twice the last one counts."""
    open_ = FEATURE_GATES[name]
    for written in config.feature_gates:
        known, _, value = written.partition("=")
        if known == name:
            open_ = value != "false"
    return open_


def plugin_name(spec: PluginSpec) -> str:
    """The name by which a plugin is referred to."""
    return spec.name or spec.type


def _check_gates(source: YamlSource, config: EndpointPickerConfig) -> None:
    asked: dict[str, bool] = {}
    for i, gate in enumerate(config.feature_gates):
        name, equals, value = gate.partition("=")
        where = source.where(f"featureGates[{i}]")
        if name not in FEATURE_GATES:
            raise ConfigError(f"{where}: feature gate '{name}' is unknown or unregistered{nearest(name, FEATURE_GATES)}")
        if equals and value not in ("true", "false"):
            raise ConfigError(f"{where}: '{gate}': expected {name}, {name}=true or {name}=false")
        if name == "haPopulateNonLeaderDatastore" and value == "false":
            raise ConfigError(f"{where}: '{gate}': there is no leader election in this version; every picker knows its endpoints")
        on = value != "false"
        if asked.setdefault(name, on) is not on:
            raise ConfigError(f"{where}: '{gate}': an earlier entry says otherwise")


def _check_plugins(source: YamlSource, config: EndpointPickerConfig) -> None:
    seen: set[str] = set()
    for i, spec in enumerate(config.plugins):
        where = source.where(f"plugins[{i}]")
        if not spec.type:
            raise ConfigError(f"{where}: plugin '{spec.name}' is missing a type")
        name = plugin_name(spec)
        if name in seen:
            where = source.where(f"plugins[{i}].{'name' if spec.name else 'type'}")
            raise ConfigError(f"{where}: duplicate plugin name '{name}'")
        seen.add(name)


def _check_profiles(source: YamlSource, config: EndpointPickerConfig) -> None:
    seen: set[str] = set()
    for i, profile in enumerate(config.scheduling_profiles):
        if not profile.name:
            raise ConfigError(f"{source.where(f'schedulingProfiles[{i}]')}: schedulingProfiles[{i}] is missing a name")
        if profile.name in seen:
            raise ConfigError(f"{source.where(f'schedulingProfiles[{i}].name')}: duplicate scheduling profile name '{profile.name}'")
        seen.add(profile.name)
        for j, ref in enumerate(profile.plugins):
            where = source.where(f"schedulingProfiles[{i}].plugins[{j}]")
            if not ref.plugin_ref:
                raise ConfigError(f"{where}: scheduling profile '{profile.name}' has a plugin entry missing a 'pluginRef'")
            if ref.weight is not None and not 0 <= ref.weight < float("inf"):
                place = source.where(f"schedulingProfiles[{i}].plugins[{j}].weight")
                raise ConfigError(f"{place}: expected a finite number that is not negative, got {ref.weight}")


def _refuse_later_features(source: YamlSource, config: EndpointPickerConfig) -> None:
    layer = config.data_layer
    if layer is not None and layer.peer_discovery:
        raise ConfigError(f"{source.where('dataLayer')}: peer discovery is not supported by this version")
    if layer is not None and (layer.cross_replica_syncer_plugin_ref or layer.cross_replica_sync_interval):
        raise ConfigError(f"{source.where('dataLayer')}: cross-replica synchronisation is not supported by this version")
