"""The configuration document: the reference's default, and every way in which a document can be wrong by itself (contract section 3)."""

from __future__ import annotations

import logging

import pytest

from picker.config import API_VERSIONS, EndpointPickerConfig, decode, default_source, plugin_name
from picker.errors import ConfigError
from picker.yaml_source import YamlSource

HEAD = "apiVersion: llm-d.ai/v1alpha1\nkind: EndpointPickerConfig\n"


def config(body: str) -> EndpointPickerConfig:
    return decode(YamlSource(HEAD + body, "epp.yaml"))


def refused(text: str) -> str:
    with pytest.raises(ConfigError) as error:
        decode(YamlSource(text, "epp.yaml"))
    return str(error.value)


def test_the_default_is_the_references() -> None:
    default = decode(default_source())
    assert [(plugin_name(p), p.parameters) for p in default.plugins] == [
        ("queue-scorer", None),
        ("kv-cache-utilization-scorer", None),
        ("prefix-cache-scorer", None),
    ]
    (profile,) = default.scheduling_profiles
    assert profile.name == "default"
    assert [(r.plugin_ref, r.weight) for r in profile.plugins] == [
        ("queue-scorer", 2),
        ("kv-cache-utilization-scorer", 2),
        ("prefix-cache-scorer", 3),
    ]


def test_both_api_versions_are_read_and_the_old_one_is_reported(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        assert config("").api_version == API_VERSIONS[0]
        assert not caplog.records
        old = "apiVersion: inference.networking.x-k8s.io/v1alpha1\nkind: EndpointPickerConfig\n"
        assert decode(YamlSource(old, "epp.yaml")).plugins == ()
    assert [r.getMessage() for r in caplog.records] == [
        "epp.yaml:1: apiVersion: 'inference.networking.x-k8s.io/v1alpha1' is deprecated; use llm-d.ai/v1alpha1"
    ]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("kind: EndpointPickerConfig", "epp.yaml:1: Object missing required field `apiVersion`"),
        ("apiVersion: llm-d.ai/v1alpha1", "epp.yaml:1: Object missing required field `kind`"),
        (
            "kind: EndpointPickerConfig\napiVersion: v2",
            "epp.yaml:2: apiVersion: 'v2' is not known; expected llm-d.ai/v1alpha1 or inference.networking.x-k8s.io/v1alpha1",
        ),
        ("apiVersion: llm-d.ai/v1alpha1\nkind: Pod", "epp.yaml:2: kind: 'Pod' is not known; expected EndpointPickerConfig"),
        (HEAD + "compat: llm-d", "epp.yaml:3: compat: 'llm-d' is not known; expected reference, or no compat at all"),
        (HEAD + "compat: Reference", "epp.yaml:3: compat: 'Reference' is not known; expected reference, or no compat at all"),
        (HEAD + "compat: true", "epp.yaml:3: compat: Expected `str`, got `bool`; found True"),
        (HEAD + "compat: [reference]", "epp.yaml:3: compat: Expected `str`, got `array`"),
    ],
)
def test_the_head(text: str, message: str) -> None:
    assert refused(text) == message


def test_compat() -> None:
    assert (config("").compat, config("compat: reference").compat) == ("", "reference")


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ("plugin: []", "epp.yaml:3: plugin: Object contains unknown field `plugin`; did you mean 'plugins'?"),
        (
            "plugins:\n- type: queue-scorer\n  parameter: {}",
            "epp.yaml:5: plugins[0].parameter: Object contains unknown field `parameter`; did you mean 'parameters'?",
        ),
        (
            "schedulingProfiles:\n- name: a\n  plugin: []",
            "epp.yaml:5: schedulingProfiles[0].plugin: Object contains unknown field `plugin`; did you mean 'plugins'?",
        ),
        (
            "schedulingProfiles:\n- name: a\n  plugins:\n  - pluginref: x",
            "epp.yaml:6: schedulingProfiles[0].plugins[0].pluginref: Object contains unknown field `pluginref`; did you mean 'pluginRef'?",
        ),
        (
            "requestHandler: {parser: []}",
            "epp.yaml:3: requestHandler.parser: Object contains unknown field `parser`; did you mean 'parsers'?",
        ),
        ("requestHandler: {parsers: [{ref: x}]}", "epp.yaml:3: requestHandler.parsers[0].ref: Object contains unknown field `ref`"),
        ("dataLayer: {source: []}", "epp.yaml:3: dataLayer.source: Object contains unknown field `source`; did you mean 'sources'?"),
        ("dataLayer: {discovery: {plugin: x}}", "epp.yaml:3: dataLayer.discovery.plugin: Object contains unknown field `plugin`"),
        ("saturationDetector: {name: x}", "epp.yaml:3: saturationDetector.name: Object contains unknown field `name`"),
        ("parser: {name: x}", "epp.yaml:3: parser.name: Object contains unknown field `name`; known: pluginRef"),
        ("flowControl: {saturationDetector: {x: 1}}", "epp.yaml:3: flowControl.saturationDetector.x: Object contains unknown field `x`"),
    ],
)
def test_unknown_fields_are_refused_at_every_level(body: str, message: str) -> None:
    assert refused(HEAD + body).startswith(message)


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ("plugins: {type: x}", "epp.yaml:3: plugins: Expected `array`, got `object`"),
        ("plugins: [queue-scorer]", "epp.yaml:3: plugins[0]: Expected `object`, got `str`; found 'queue-scorer'"),
        ("plugins: [{type: 7}]", "epp.yaml:3: plugins[0].type: Expected `str`, got `int`; found 7"),
        ("plugins: [{type: x, parameters: []}]", "epp.yaml:3: plugins[0].parameters: Expected `object | null`, got `array`"),
        ("featureGates: flowControl", "epp.yaml:3: featureGates: Expected `array`, got `str`; found 'flowControl'"),
        ("featureGates: [{flowControl: true}]", "epp.yaml:3: featureGates[0]: Expected `str`, got `object`"),
        (
            "schedulingProfiles: [{name: a, plugins: [{pluginRef: x, weight: heavy}]}]",
            "epp.yaml:3: schedulingProfiles[0].plugins[0].weight: Expected `float | null`, got `str`; found 'heavy'",
        ),
        (
            "schedulingProfiles: [{name: a, plugins: [{pluginRef: x, weight: true}]}]",
            "epp.yaml:3: schedulingProfiles[0].plugins[0].weight: Expected `float | null`, got `bool`; found True",
        ),
        ("dataLayer: []", "epp.yaml:3: dataLayer: Expected `object | null`, got `array`"),
    ],
)
def test_wrong_types_are_refused(body: str, message: str) -> None:
    assert refused(HEAD + body) == message


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ("plugins:\n- name: mine", "epp.yaml:4: plugins[0]: plugin 'mine' is missing a type"),
        ("plugins:\n- {}", "epp.yaml:4: plugins[0]: plugin '' is missing a type"),
        ("plugins:\n- type: a\n- type: a", "epp.yaml:5: plugins[1].type: duplicate plugin name 'a'"),
        ("plugins:\n- type: a\n- type: b\n  name: a", "epp.yaml:6: plugins[1].name: duplicate plugin name 'a'"),
        ("schedulingProfiles:\n- plugins: []", "epp.yaml:4: schedulingProfiles[0]: schedulingProfiles[0] is missing a name"),
        (
            "schedulingProfiles:\n- name: a\n- name: b\n- name: a",
            "epp.yaml:6: schedulingProfiles[2].name: duplicate scheduling profile name 'a'",
        ),
        (
            "schedulingProfiles:\n- name: a\n  plugins:\n  - weight: 1",
            "epp.yaml:6: schedulingProfiles[0].plugins[0]: scheduling profile 'a' has a plugin entry missing a 'pluginRef'",
        ),
        ("featureGates: [flowcontrol]", "epp.yaml:3: featureGates[0]: feature gate 'flowcontrol' is unknown or unregistered; did you mean"),
        ("featureGates: [zzz=true]", "epp.yaml:3: featureGates[0]: feature gate 'zzz' is unknown or unregistered; known: flowControl, ha"),
        ("featureGates: [flowControl=on]", "epp.yaml:3: featureGates[0]: 'flowControl=on': expected flowControl, flowControl=true or"),
        ("flowControl: {maxByte: 1}", "epp.yaml:3: flowControl.maxByte: Object contains unknown field `maxByte`; did you mean"),
        (
            "flowControl: {priorityBands: [{prio: 1}]}",
            "epp.yaml:3: flowControl.priorityBands[0].prio: Object contains unknown field `prio`",
        ),
        (
            "featureGates: [flowControl, flowControl=false]",
            "epp.yaml:3: featureGates[1]: 'flowControl=false': an earlier entry says otherwise",
        ),
        ("featureGates: [flowControl=]", "epp.yaml:3: featureGates[0]: 'flowControl=': expected flowControl, flowControl=true or"),
    ],
)
def test_errors_of_the_contract(body: str, message: str) -> None:
    assert refused(HEAD + body).startswith(message)


@pytest.mark.parametrize("weight", ["-1", "-0.001", ".inf", "-.inf", ".nan"])
def test_a_weight_is_a_finite_number_that_is_not_negative(weight: str) -> None:
    text = refused(HEAD + f"schedulingProfiles:\n- name: a\n  plugins:\n  - pluginRef: x\n    weight: {weight}")
    assert text.startswith("epp.yaml:7: schedulingProfiles[0].plugins[0].weight: expected a finite number that is not negative, got ")


@pytest.mark.parametrize(("weight", "value"), [("0", 0.0), ("3", 3.0), ("0.5", 0.5), ("1e3", None), ("1.0e+3", 1000.0), ("null", None)])
def test_weights_as_yaml_writes_them(weight: str, value: float | None) -> None:
    body = f"schedulingProfiles: [{{name: a, plugins: [{{pluginRef: x, weight: {weight}}}]}}]"
    if weight == "1e3":  # YAML 1.1 takes it for text; refused rather than read as something else
        assert "found '1e3'" in refused(HEAD + body)
        return
    assert config(body).scheduling_profiles[0].plugins[0].weight == value


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (
            "featureGates: ['haPopulateNonLeaderDatastore=false']",
            "epp.yaml:3: featureGates[0]: 'haPopulateNonLeaderDatastore=false': there is",
        ),
        ("dataLayer: {peerDiscovery: {pluginRef: x}}", "epp.yaml:3: dataLayer: peer discovery is not supported by this version"),
        ("dataLayer: {crossReplicaSyncerPluginRef: x}", "epp.yaml:3: dataLayer: cross-replica synchronisation is not supported"),
        ("dataLayer: {crossReplicaSyncInterval: 1s}", "epp.yaml:3: dataLayer: cross-replica synchronisation is not supported"),
    ],
)
def test_what_this_version_cannot_do_is_refused_not_ignored(body: str, message: str) -> None:
    assert refused(HEAD + body).startswith(message)


@pytest.mark.parametrize(
    "body",
    [
        "featureGates: ['flowControl=false', haPopulateNonLeaderDatastore, 'haPopulateNonLeaderDatastore=true']",
        "dataLayer: {}",
        "dataLayer: {injectDefaults: true}",
        "dataLayer: {sources: []}",
        "dataLayer: {injectDefaults: false}",
        "flowControl: {}",
        "requestHandler: {}",
        "plugins: []\nschedulingProfiles: []",
    ],
)
def test_what_asks_for_nothing_special_is_accepted(body: str) -> None:
    config(body)


def test_a_repeated_key_is_refused() -> None:
    assert refused(HEAD + "plugins: []\nplugins: []") == "epp.yaml:4: not valid YAML: key 'plugins' is given twice"
