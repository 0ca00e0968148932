"""From a configuration to a pipeline: defaults, references, dependencies (contract section 3)."""

from __future__ import annotations

import logging
from typing import Any

import pytest

from picker.admission.saturation import Shedding, UtilizationDetector
from picker.catalogue import STAGES
from picker.config import default_source
from picker.errors import ConfigError
from picker.loader import Options, Pipeline, load
from picker.metrics import Metrics
from picker.scheduling.producers import ApproxPrefixCacheProducer
from picker.yaml_source import YamlSource
from tests.picker.well_known import WELL_KNOWN

HEAD = "apiVersion: llm-d.ai/v1alpha1\nkind: EndpointPickerConfig\n"


def pipeline(body: str) -> Pipeline:
    return load(YamlSource(HEAD + body, "epp.yaml"), Metrics(), Options(experimental=True))


def refused(body: str) -> str:
    with pytest.raises(ConfigError) as error:
        pipeline(body)
    return str(error.value)


def shape(made: Pipeline) -> dict[str, tuple[list[str], list[tuple[str, float]], str]]:
    """Per profile: filters, weighted scorers, picker."""
    return {
        name: ([f.name for f in p.filters], [(s.plugin.name, s.weight) for s in p.scorers], p.picker.name)  # type: ignore[attr-defined]
        for name, p in made.stages.scheduler.profiles.items()
    }


def types(plugins: Any) -> list[str]:
    return [p.type for p in plugins]


DEFAULT_SHAPE = {
    "default": ([], [("queue-scorer", 2), ("kv-cache-utilization-scorer", 2), ("prefix-cache-scorer", 3)], "max-score-picker"),
}
PARSERS = ["openai-parser", "anthropic-parser", "vllmhttp-parser", "passthrough-parser"]


def test_the_default_pipeline() -> None:
    made = load(default_source(), Metrics())
    assert shape(made) == DEFAULT_SHAPE
    assert types(made.stages.parsers.parsers) == PARSERS
    assert types([made.detector, made.stages.scheduler.handler]) == ["utilization-detector", "single-profile-handler"]
    assert isinstance(made.stages.shedder, Shedding)
    assert (
        types(made.producers)
        == types([hook for hook, _ in made.stages.pre_request])
        == types(made.watchers)
        == ["approx-prefix-cache-producer"]
    )


def test_nothing_but_the_head_is_a_profile_that_picks_at_random() -> None:
    made = pipeline("")
    assert shape(made) == {"default": ([], [], "max-score-picker")}
    assert types(made.stages.parsers.parsers) == PARSERS
    assert made.producers == []


def test_without_profiles_everything_declared_is_used() -> None:
    made = pipeline("plugins: [{type: decode-filter}, {type: random-picker}, {type: queue-scorer}, {type: openai-parser}]")
    assert shape(made) == {"default": (["decode-filter"], [("queue-scorer", 1.0)], "random-picker")}
    assert types(made.stages.parsers.parsers) == ["openai-parser"]


def test_a_declared_picker_is_used_by_a_profile_without_one() -> None:
    made = pipeline("plugins: [{type: random-picker, name: any}]\nschedulingProfiles: [{name: a}]")
    assert shape(made) == {"a": ([], [], "any")}


def test_names_and_weights() -> None:
    made = pipeline(
        "plugins: [{type: queue-scorer, name: q}, {type: max-score-picker, name: best, parameters: {maxNumOfEndpoints: 2}}]\n"
        "schedulingProfiles: [{name: a, plugins: [{pluginRef: q, weight: 0.5}, {pluginRef: best}, {pluginRef: q}]}]"
    )
    assert shape(made) == {"a": ([], [("q", 0.5), ("q", 1.0)], "best")}
    assert made.stages.scheduler.profiles["a"].picker.count == 2  # type: ignore[attr-defined]


# As they are found in the field's charts and guides.


@pytest.mark.parametrize("name", WELL_KNOWN)
def test_well_known_configurations_load(name: str) -> None:
    assert pipeline(WELL_KNOWN[name]).stages.scheduler.profiles


@pytest.mark.parametrize("type_", [cls.type for stage in STAGES.values() for cls in stage])
def test_every_type_of_the_catalogue_builds_from_nothing_and_refuses_unknown_parameters(type_: str) -> None:
    if type_ not in NEEDS_PREDICTIONS:
        pipeline(f"plugins:\n- type: {type_}\n  parameters: {{{REQUIRED.get(type_, '')}}}")
    text = refused(f"plugins:\n- type: {type_}\n  parameters: {{zzzzz: 1, {REQUIRED.get(type_, '')}}}")
    assert text.startswith("epp.yaml:5: plugins[0].parameters.zzzzz: Object contains unknown field `zzzzz`; known: ")


REQUIRED = {
    "by-label": "label: zone, validValues: [a]",
    "utilization-filter": "conditions: [{metric: waiting-queue, maxValue: 5}]",
    "header-label-affinity-scorer": "headerName: x-zone, labelKey: zone",
    "endpoint-attribute-filter": "attribute: a, algorithm: {type: threshold, threshold: {operator: LessThan, value: 5}}",
    "endpoint-attribute-scorer": "attributeKey: a, algorithm: {type: linear_lower_is_better}",
    "file-discovery": "path: endpoints.yaml",
    "header-profile-handler": "defaultProfile: default",
    "priority-holdback-policy": "minCeiling: 0.5",
    "session-id-producer": "headerName: x-session",
    "request-attribute-reporter": "attributes: [{key: {name: a}, expression: '1'}]",
}
"""Parameters of the types that cannot do without."""

NEEDS_PREDICTIONS = frozenset({"latency-scorer", "slo-headroom-tier-filter", "latency-slo-admitter"})
"""Of a plugin that does not ship with fairlead: see test_needs.py."""


def test_a_scorer_gets_its_default_producer_and_shares_it() -> None:
    made = pipeline("plugins: [{type: prefix-cache-scorer}, {type: token-load-scorer}]")
    (producer,) = made.producers
    scorers = [s.plugin for s in made.stages.scheduler.profiles["default"].scorers]
    assert scorers[0]._producer is scorers[1]._prefix is producer  # type: ignore[attr-defined]


def test_a_producer_may_stand_after_its_scorer_and_have_a_name_of_its_own() -> None:
    made = pipeline(
        "plugins:\n- {type: token-load-scorer, parameters: {prefixMatchInfoProducerName: mine}}\n"
        "- {type: approx-prefix-cache-producer, name: mine, parameters: {lruCapacityPerServer: 7}}"
    )
    (producer,) = made.producers
    assert producer.name == "mine"
    assert isinstance(producer, ApproxPrefixCacheProducer)


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (
            "plugins:\n- type: queue-scorr",
            "epp.yaml:4: plugins[0].type: plugin type 'queue-scorr' is not registered; did you mean queue-scorer",
        ),
        (
            "plugins:\n- type: predicted-latency-producer",
            "epp.yaml:4: plugins[0].type: plugin type 'predicted-latency-producer' is not in this version: it belongs to latency "
            "prediction",
        ),
        ("plugins:\n- {type: zz, name: mine}", "epp.yaml:4: plugins[0].type: plugin type 'zz' is not registered"),
        (
            "plugins:\n- type: max-score-picker\n  parameters:\n    maxNumOfEndpoint: 2",
            "epp.yaml:6: plugins[0].parameters.maxNumOfEndpoint: Object contains unknown field `maxNumOfEndpoint`; "
            "did you mean 'maxNumOfEndpoints'?",
        ),
        (
            "plugins:\n- type: max-score-picker\n  parameters:\n    maxNumOfEndpoints: 0",
            "epp.yaml:6: plugins[0].parameters.maxNumOfEndpoints: Expected `int` >= 1; found 0",
        ),
        (
            "plugins:\n- type: label-selector-filter\n  parameters:\n    matchExpressions:\n    - {key: a, operator: In, vals: [x]}",
            "epp.yaml:7: plugins[0].parameters.matchExpressions[0].vals: Object contains unknown field `vals`; did you mean 'values'?",
        ),
        (
            "plugins:\n- type: label-selector-filter\n  parameters:\n    matchExpressions:\n    - {key: a, operator: In}",
            "epp.yaml:7: plugins[0].parameters.matchExpressions[0]: operator In needs values",
        ),
        (
            "plugins:\n- type: utilization-detector\n  parameters: {metricsStalenessThreshold: 5}",
            "epp.yaml:5: plugins[0].parameters.metricsStalenessThreshold: Expected `str`, got `int`; found 5",
        ),
        (
            "plugins:\n- type: utilization-detector\n  parameters: {metricsStalenessThreshold: '5'}",
            "epp.yaml:5: plugins[0].parameters: metricsStalenessThreshold: '5' is not a duration; expected e.g. 200ms, 5s or 1m30s",
        ),
        (
            "plugins:\n- type: queue-scorer\nschedulingProfiles:\n- name: a\n  plugins:\n  - pluginRef: que-scorer",
            "epp.yaml:8: schedulingProfiles[0].plugins[0]: scheduling profile 'a' references undefined plugin 'que-scorer'; "
            "did you mean 'queue-scorer'?",
        ),
        (
            "schedulingProfiles: [{name: a, plugins: [{pluginRef: q}]}]",
            "epp.yaml:3: schedulingProfiles[0].plugins[0]: scheduling profile 'a' references undefined plugin 'q'; known: none",
        ),
        (
            "plugins: [{type: decode-filter}]\nschedulingProfiles: [{name: a, plugins: [{pluginRef: decode-filter, weight: 2}]}]",
            "epp.yaml:4: schedulingProfiles[0].plugins[0].weight: only a scorer has a weight; 'decode-filter' is a decode-filter",
        ),
        (
            "plugins: [{type: random-picker}, {type: max-score-picker}]",
            "epp.yaml:3: plugins[1]: profile 'default': already have a registered picker",
        ),
        (
            "plugins: [{type: random-picker}, {type: max-score-picker}]\n"
            "schedulingProfiles: [{name: a, plugins: [{pluginRef: random-picker}, {pluginRef: max-score-picker}]}]",
            "epp.yaml:4: schedulingProfiles[0].plugins[1]: profile 'a': already have a registered picker",
        ),
        (
            "plugins: [{type: single-profile-handler}, {type: single-profile-handler, name: b}]",
            "epp.yaml:3: plugins: multiple profile handlers found: single-profile-handler, b",
        ),
        ("schedulingProfiles: [{name: a}, {name: b}]", "epp.yaml:3: schedulingProfiles: no profile handler configured for 2 profiles"),
        (
            "plugins: [{type: single-profile-handler}]\nschedulingProfiles: [{name: a}, {name: b}]",
            "epp.yaml:4: schedulingProfiles: SingleProfileHandler cannot support multiple scheduling profiles",
        ),
        (
            "requestHandler:\n  parsers:\n  - pluginRef: openai-parser",
            "epp.yaml:5: requestHandler.parsers[0]: parser references undefined plugin 'openai-parser'; known: none",
        ),
        (
            "plugins: [{type: queue-scorer}]\nrequestHandler: {parsers: [{pluginRef: queue-scorer}]}",
            "epp.yaml:4: requestHandler.parsers[0]: 'queue-scorer' (queue-scorer) is not a parser",
        ),
        ("requestHandler: {parsers: [{}]}", "epp.yaml:3: requestHandler.parsers[0]: parser references undefined plugin ''"),
        ("parser: {pluginRef: nope}", "epp.yaml:3: parser: parser references undefined plugin 'nope'"),
        (
            "plugins: [{type: openai-parser}]\nrequestHandler: {parsers: [{pluginRef: openai-parser}]}\nparser: {pluginRef: openai-parser}",
            "epp.yaml:5: parser: give requestHandler.parsers or the deprecated parser, not both",
        ),
        (
            "plugins: [{type: utilization-detector}]\nflowControl: {saturationDetector: {pluginRef: utilisation-detector}}",
            "epp.yaml:4: flowControl.saturationDetector: saturation detector references undefined plugin 'utilisation-detector'; "
            "did you mean 'utilization-detector'?",
        ),
        (
            "plugins: [{type: queue-scorer}]\nsaturationDetector: {pluginRef: queue-scorer}",
            "epp.yaml:4: saturationDetector: 'queue-scorer' (queue-scorer) is not a saturation detector",
        ),
        (
            "plugins: [{type: utilization-detector, name: a}]\nflowControl: {saturationDetector: {pluginRef: a}}\n"
            "saturationDetector: {pluginRef: a}",
            "epp.yaml:5: saturationDetector: give flowControl.saturationDetector or the deprecated saturationDetector, not both",
        ),
        (
            "plugins:\n- type: decode-filter\n- type: token-load-scorer\n  parameters: {prefixMatchInfoProducerName: mine}",
            "epp.yaml:5: plugins[1]: 'token-load-scorer' references undefined plugin 'mine'",
        ),
        (
            "plugins:\n- {type: queue-scorer, name: mine}\n- {type: token-load-scorer, parameters: {prefixMatchInfoProducerName: mine}}",
            "epp.yaml:5: plugins[1]: 'token-load-scorer' needs a approx-prefix-cache-producer, but 'mine' is a queue-scorer",
        ),
        (
            "plugins:\n- {type: prefix-cache-scorer, name: a, parameters: {prefixMatchInfoProducerName: b}}\n"
            "- {type: token-load-scorer, name: b, parameters: {prefixMatchInfoProducerName: a}}",
            "epp.yaml:4: plugins[0]: dependency cycle: a -> b -> a",
        ),
        (
            "plugins: [{type: token-load-scorer, parameters: {prefixMatchInfoProducerName: token-load-scorer}}]",
            "epp.yaml:3: plugins[0]: dependency cycle: token-load-scorer -> token-load-scorer",
        ),
        (
            "plugins: [{type: queue-scorer, name: single-profile-handler}]",
            "epp.yaml:3: plugins[0]: a queue-scorer has the name of the default single-profile-handler; give it another one",
        ),
    ],
)
def test_what_is_refused(body: str, message: str) -> None:
    assert refused(body).startswith(message)


def test_deprecated_top_level_forms_work_and_are_reported(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        made = pipeline(
            "plugins: [{type: passthrough-parser}, {type: utilization-detector, name: d, parameters: {queueDepthThreshold: 1}}]\n"
            "schedulingProfiles: [{name: a}]\nparser: {pluginRef: passthrough-parser}\nsaturationDetector: {pluginRef: d}"
        )
    assert types(made.stages.parsers.parsers) == ["passthrough-parser"]
    assert made.detector.name == "d"  # type: ignore[attr-defined]
    messages = [r.getMessage() for r in caplog.records]
    assert messages == [
        "epp.yaml: top-level 'saturationDetector' is deprecated; use flowControl.saturationDetector",
        "epp.yaml: 'parser' is deprecated; use requestHandler.parsers",
    ]


@pytest.mark.parametrize(
    "body",
    [
        "",
        "flowControl: {saturationDetector: {}}",
        "flowControl: {saturationDetector: {pluginRef: utilization-detector}}",
        "plugins: [{type: utilization-detector}]",
    ],
)
def test_the_saturation_detector_guards_against_overload(body: str) -> None:
    made = pipeline(body)
    assert isinstance(made.detector, UtilizationDetector)
    shedding = made.stages.shedder
    assert isinstance(shedding, Shedding)
    assert shedding._detector is made.detector


def test_parsers_keep_the_order_of_the_configuration() -> None:
    body = (
        "plugins: [{type: openai-parser}, {type: passthrough-parser}]\n"
        "requestHandler: {parsers: [{pluginRef: passthrough-parser}, {pluginRef: openai-parser}]}"
    )
    assert types(pipeline(body).stages.parsers.parsers) == ["passthrough-parser", "openai-parser"]


def test_prefix_hits_are_counted_under_the_producers_name() -> None:
    metrics = Metrics()
    load(YamlSource(HEAD + "plugins: [{type: approx-prefix-cache-producer, name: mine}]", "x"), metrics)
    assert list(metrics.prefix_hit_ratio.cells) == list(metrics.prefix_hit_bytes.cells) == [("mine", "approx-prefix-cache-producer")]


def test_the_memory_for_prefix_indexes_is_shared_out() -> None:
    one = load(default_source(), Metrics(), Options(prefix_index_bytes=10 << 20))
    assert [p.index.limit_bytes for p in one.producers] == [10 << 20]
    body = "plugins: [{type: approx-prefix-cache-producer, name: a}, {type: approx-prefix-cache-producer, name: b}]"
    two = load(YamlSource(HEAD + body, "x"), Metrics(), Options(prefix_index_bytes=10 << 20))
    assert [p.index.limit_bytes for p in two.producers] == [5 << 20] * 2
    unlimited = load(default_source(), Metrics())
    assert all(p.index.limit_bytes > 1 << 60 for p in unlimited.producers)
