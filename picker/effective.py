"""The effective configuration: everything that was filled in, as a document that loads to the same pipeline."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import msgspec
import yaml

from picker.admission.flow.settings import BandSettings, FlowSettings
from picker.config import API_VERSIONS, FEATURE_GATES, KIND, gate
from picker.loader import Pipeline
from picker.plugin import Filter, Picker, Scorer


def document(pipeline: Pipeline) -> dict[str, Any]:
    """JSON-ready, in the order in which the contract lists the sections."""
    config = pipeline.config
    made: dict[str, Any] = {"apiVersion": API_VERSIONS[0], "kind": KIND}
    if pipeline.as_reference:
        made["compat"] = config.compat
    made["featureGates"] = [f"{name}={str(gate(config, name)).lower()}" for name in FEATURE_GATES]
    made["plugins"] = [
        {
            "type": built.plugin.type,
            **({"name": name} if name != built.plugin.type else {}),
            **({"parameters": parameters} if (parameters := _parameters(built.parameters)) else {}),
        }
        for name, built in pipeline.built.items()
    ]
    made["schedulingProfiles"] = [
        {
            "name": profile.name,
            "plugins": [
                *[{"pluginRef": name} for name in _names(profile.filters) if name not in _names(s.plugin for s in profile.scorers)],
                *[{"pluginRef": s.plugin.name, "weight": s.weight} for s in profile.scorers],  # type: ignore[attr-defined]
                {"pluginRef": profile.picker.name},  # type: ignore[attr-defined]
            ],
        }
        for profile in pipeline.stages.scheduler.profiles.values()
    ]
    made["requestHandler"] = {"parsers": [{"pluginRef": name} for name in _names(pipeline.stages.parsers.parsers)]}
    detector = {"pluginRef": pipeline.detector.name}  # type: ignore[attr-defined]
    made["flowControl"] = {**({} if pipeline.flow is None else _flow(pipeline.flow)), "saturationDetector": detector}
    if config.data_layer is not None:
        made["dataLayer"] = _parameters(config.data_layer)
    return made


def as_yaml(pipeline: Pipeline) -> str:
    """The document, and below it as comments what each profile runs and why there are plugins that nobody named."""
    text = yaml.safe_dump(document(pipeline), sort_keys=False, default_flow_style=None, width=140)
    return text + "".join(f"# {line}\n" if line else "#\n" for line in explained(pipeline))


def explained(pipeline: Pipeline) -> Iterator[str]:
    """In lines."""
    handler: Any = pipeline.stages.scheduler.handler
    yield f"profile handler: {handler.name}"
    for profile in pipeline.stages.scheduler.profiles.values():
        yield ""
        yield f"profile {profile.name} runs"
        for plugin in profile.filters:
            yield f"  filter {_called(plugin)}"
        for scorer in profile.scorers:
            yield f"  scorer {_called(scorer.plugin)} x {scorer.weight:g}"
        yield f"  picker {_called(profile.picker)}"
    written = {spec.name or spec.type for spec in pipeline.config.plugins}
    askers: dict[str, list[str]] = {}
    for name, built in pipeline.built.items():
        for asked in built.asked:
            askers.setdefault(asked.plugin.name, []).append(name)
    added = [name for name in pipeline.built if name not in written]
    if added:
        yield ""
        yield "added, because nothing else was said"
        for name in added:
            reason = f", needed by {', '.join(askers[name])}" if name in askers else ""
            yield f"  {name}{reason}"
    idle = _unused(pipeline)
    if idle:
        yield ""
        yield "in no profile, and therefore without effect"
        for name in idle:
            yield f"  {name}"


def _unused(pipeline: Pipeline) -> list[str]:
    used: set[int] = set()
    for profile in pipeline.stages.scheduler.profiles.values():
        used |= {id(p) for p in (*profile.filters, *[s.plugin for s in profile.scorers], profile.picker)}
    if pipeline.flow is not None:
        used |= {id(p) for p in pipeline.flow.plugins()}
    used.add(id(pipeline.detector))
    found = [n for n, b in pipeline.built.items() if isinstance(b.plugin, Filter | Scorer | Picker) and id(b.plugin) not in used]
    return [name for name in found if not _elsewhere(pipeline.built[name].plugin)]


def _elsewhere(plugin: Any) -> bool:
    """It does something outside of profiles, too."""
    return any(hasattr(plugin, method) for method in ("produce", "request_header", "admit", "response_header", "response_complete"))


def _flow(flow: FlowSettings) -> dict[str, Any]:
    return {
        "maxBytes": flow.max_bytes,
        "maxRequests": flow.max_requests,
        "defaultRequestTTL": _seconds(flow.default_ttl_s),
        "noEndpointRequestTTL": _seconds(flow.no_endpoint_ttl_s),
        "defaultPriorityBand": _band(flow.default_band),
        "defaultNegativePriorityBand": _band(flow.default_negative_band),
        "priorityBands": [{"priority": priority, **_band(band)} for priority, band in flow.bands.items()],
        "usageLimitPolicyPluginRef": _name(flow.usage_limit),
        "enableEviction": flow.eviction is not None,
    }


def _band(band: BandSettings) -> dict[str, Any]:
    made = {
        "maxBytes": band.max_bytes,
        "maxRequests": band.max_requests,
        "fairnessPolicyRef": _name(band.fairness),
        "orderingPolicyRef": _name(band.ordering),
    }
    return made if band.weight is None else {**made, "weight": band.weight}


def _seconds(seconds: float) -> str:
    """As Go reads it."""
    return f"{seconds:.9f}".rstrip("0").rstrip(".") + "s"


def _parameters(decoded: Any) -> Any:
    """Without what says nothing (null)."""
    return _plain(msgspec.to_builtins(decoded))


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {k: _plain(v) for k, v in value.items() if v is not None}
    return [_plain(v) for v in value] if isinstance(value, list | tuple) else value


def _name(plugin: Any) -> str:
    return str(plugin.name)


def _names(plugins: Sequence[Any] | Iterator[Any]) -> list[str]:
    return [_name(plugin) for plugin in plugins]


def _called(plugin: Any) -> str:
    return _name(plugin) if plugin.name == plugin.type else f"{plugin.name} ({plugin.type})"
