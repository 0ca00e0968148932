"""Which plugin types there are, under which names, and which instances go on after a reload."""

from __future__ import annotations

import pytest

from picker.errors import ConfigError
from picker.loader import Options, Pipeline, load
from picker.metrics import Metrics
from picker.yaml_source import YamlSource
from tests.picker.test_loader import HEAD, REQUIRED, pipeline, refused, types


@pytest.mark.parametrize("type_", ["priority-holdback-policy", "soft-reflective-ceiling-policy"])
def test_experimental_types_have_to_be_allowed(type_: str) -> None:
    source = YamlSource(HEAD + f"plugins: [{{type: {type_}, parameters: {{{REQUIRED.get(type_, '')}}}}}]", "epp.yaml")
    with pytest.raises(ConfigError, match=f"'{type_}' is experimental; allow it with --allow-experimental-plugins"):
        load(source, Metrics())
    assert load(source, Metrics(), Options(experimental=True)).built[type_]


@pytest.mark.parametrize(
    ("type_", "feature"),
    [
        ("precise-prefix-cache-scorer", "the precise prefix index"),
        ("predicted-latency-producer", "latency prediction"),
        ("multicluster-queue-scorer", "pools of several clusters"),
        ("disagg-profile-handler", "disaggregation"),
        ("k8s-notification-source", "Kubernetes"),
    ],
)
def test_types_of_the_reference_that_are_not_here_yet_say_what_they_belong_to(type_: str, feature: str) -> None:
    text = refused(f"plugins: [{{type: {type_}}}]")
    assert f"plugins[0].type: plugin type '{type_}' is not in this version: it belongs to {feature}" in text


def test_old_names_go_on_with_a_warning(caplog: pytest.LogCaptureFixture) -> None:
    made = pipeline("plugins: [{type: by-label-selector, name: mine, parameters: {matchLabels: {a: b}}}]")
    assert types([made.built["mine"].plugin]) == ["label-selector-filter"]
    text = "'by-label-selector' is deprecated since v0.9.0 and will be removed in v0.11.0; use label-selector-filter"
    assert any(text in record.getMessage() for record in caplog.records)


def test_what_did_not_change_is_taken_over() -> None:
    metrics = Metrics()

    def again(body: str, before: Pipeline | None = None) -> Pipeline:
        return load(YamlSource(HEAD + body, "x"), metrics, Options(), before)

    first = again("plugins: [{type: prefix-cache-scorer}, {type: queue-scorer}]")
    second = again("plugins: [{type: queue-scorer}, {type: prefix-cache-scorer}, {type: lora-affinity-scorer}]", first)
    for name in ("queue-scorer", "prefix-cache-scorer", "approx-prefix-cache-producer"):
        assert second.built[name].plugin is first.built[name].plugin
    # Another producer: the scorer that asked for it has to ask again.
    third = again(
        "plugins: [{type: approx-prefix-cache-producer, parameters: {blockSizeTokens: 128}}, {type: prefix-cache-scorer}, "
        "{type: queue-scorer}]",
        second,
    )
    assert third.built["queue-scorer"].plugin is first.built["queue-scorer"].plugin
    assert third.built["prefix-cache-scorer"].plugin is not first.built["prefix-cache-scorer"].plugin
    assert third.built["prefix-cache-scorer"].plugin._producer is third.built["approx-prefix-cache-producer"].plugin
