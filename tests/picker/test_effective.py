"""The effective configuration, its schema and the commands that print them."""

from __future__ import annotations

import io
import json
import sys
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

from picker import catalogue
from picker.config_command import main
from picker.config_schema import schema
from picker.effective import document, explained
from picker.loader import Options, Pipeline, load
from picker.metrics import Metrics
from picker.yaml_source import YamlSource
from tests.picker.test_loader import HEAD
from tests.picker.well_known import WELL_KNOWN

FLOW = """
featureGates: [flowControl]
plugins:
- {type: round-robin-fairness-policy, name: rr}
flowControl:
  maxBytes: 4Gi
  defaultRequestTTL: 1500ms
  priorityBands:
  - {priority: 10, fairnessPolicyRef: rr, maxRequests: 5}
  - {priority: -1, weight: 2}
  enableEviction: true
"""
CASES = {**WELL_KNOWN, "empty": "", "flow control": FLOW, "reference": "compat: reference"}


def loaded(text: str) -> Pipeline:
    return load(YamlSource(text, "x"), Metrics(), Options(experimental=True))


@pytest.mark.parametrize("name", CASES)
def test_the_effective_configuration_is_a_configuration_with_the_same_effect(name: str) -> None:
    first = document(loaded(HEAD + CASES[name]))
    again = loaded(yaml.safe_dump(first))
    assert document(again) == first
    assert not any("added" in line for line in explained(again))


@pytest.mark.parametrize("name", CASES)
def test_the_schema_takes_what_the_picker_takes(name: str) -> None:
    rules = schema(catalogue.registry())
    jsonschema.Draft202012Validator.check_schema(rules)
    validator = jsonschema.Draft202012Validator(rules)
    validator.validate(yaml.safe_load(HEAD + CASES[name]))
    validator.validate(document(loaded(HEAD + CASES[name])))


@pytest.mark.parametrize(
    "change",
    [
        {"kind": "Other"},
        {"plugin": []},
        {"plugins": [{"type": "queue-scorer", "parameters": {"x": 1}}]},
        {"plugins": [{"type": "approx-prefix-cache-producer", "parameters": {"blockSizeTokens": 0}}]},
        {"plugins": [{"name": "a"}]},
        {"featureGates": ["flowcontrol"]},
        {"flowControl": {"priorityBands": [{"prio": 1}]}},
    ],
)
def test_the_schema_finds_what_the_picker_refuses(change: dict[str, Any]) -> None:
    validator = jsonschema.Draft202012Validator(schema(catalogue.registry()))
    assert not validator.is_valid({**yaml.safe_load(HEAD), **change})


def test_the_default_written_out() -> None:
    made = document(loaded(HEAD + WELL_KNOWN["tuned prefix cache"]))
    assert made["schedulingProfiles"] == [
        {
            "name": "decode",
            "plugins": [
                {"pluginRef": "decode-filter"},
                {"pluginRef": "prefix-cache-scorer", "weight": 50.0},
                {"pluginRef": "weighted-random-picker"},
            ],
        }
    ]
    assert made["plugins"][0] == {
        "type": "approx-prefix-cache-producer",
        "parameters": {
            "autoTune": False, "blockSizeTokens": 64, "maxPrefixTokensToMatch": 16384, "maxPrefixBlocksToMatch": 2048,
            "lruCapacityPerServer": 31250,
        },
    }  # fmt: skip
    assert [p["pluginRef"] for p in made["requestHandler"]["parsers"]][:2] == ["openai-parser", "anthropic-parser"]


def test_what_flow_control_fills_in() -> None:
    made = document(loaded(HEAD + FLOW))["flowControl"]
    assert (made["maxBytes"], made["maxRequests"], made["defaultRequestTTL"], made["noEndpointRequestTTL"]) == (4 << 30, 0, "1.5s", "1.5s")
    assert made["priorityBands"][0] == {
        "priority": 10, "maxBytes": 10**9, "maxRequests": 5, "fairnessPolicyRef": "rr", "orderingPolicyRef": "fcfs-ordering-policy",
    }  # fmt: skip
    assert made["priorityBands"][1]["weight"] == 2.0


def test_check_prints_what_runs_and_why(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "epp.yaml"
    file.write_text(HEAD + "plugins:\n- type: prefix-cache-scorer\n- {type: queue-scorer, name: unused}\n"
                    "schedulingProfiles:\n- name: main\n  plugins:\n  - {pluginRef: prefix-cache-scorer, weight: 3}\n")  # fmt: skip
    assert main(["check", str(file)]) == 0
    said = capsys.readouterr().out
    assert yaml.safe_load(said)["kind"] == "EndpointPickerConfig"
    assert "# profile main runs\n#   scorer prefix-cache-scorer x 3\n#   picker max-score-picker\n" in said
    assert "#   approx-prefix-cache-producer, needed by prefix-cache-scorer\n" in said
    assert "# in no profile, and therefore without effect\n#   unused\n" in said


def test_check_says_what_is_wrong_and_where(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "epp.yaml"
    file.write_text(HEAD + "plugins:\n- type: queue-scorrer\n")
    assert main(["check", str(file)]) == 1
    said = capsys.readouterr()
    assert said.out == ""
    assert f"{file}:4: plugins[0].type: plugin type 'queue-scorrer' is not registered; did you mean queue-scorer" in said.err
    assert main(["check", str(tmp_path / "none.yaml")]) == 1
    assert "none.yaml: cannot be read" in capsys.readouterr().err
    monkeypatch.setattr(sys, "stdin", io.StringIO(HEAD))
    assert main(["check", "-"]) == 0
    capsys.readouterr()
    assert main(["schema"]) == 0
    assert json.loads(capsys.readouterr().out)["title"] == "EndpointPickerConfig"
    with pytest.raises(SystemExit) as exit_:
        main(["look"])
    assert exit_.value.code == 2
