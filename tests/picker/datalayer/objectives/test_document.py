"""What may be written in an objectives file, and how a mistake is told."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from picker.datalayer.objectives.document import Declared, parse_documents
from picker.datalayer.objectives.store import Rule, Target
from picker.errors import ConfigError

HEAD = "apiVersion: llm-d.ai/v1alpha2\nkind: "
OBJECTIVE = HEAD + "InferenceObjective\nmetadata: {name: batch}\nspec: {priority: -2}\n"
REWRITE = HEAD + "InferenceModelRewrite\nmetadata: {name: r}\nspec:\n  rules:\n  - targets:\n    - modelRewrite: t\n"
STORED = """\
apiVersion: inference.networking.x-k8s.io/v1alpha2
kind: InferenceModelRewrite
metadata:
  annotations: {note: x}
  creationTimestamp: "2026-01-02T03:04:05Z"
  generation: 1
  labels: {a: b}
  managedFields: [{manager: kubectl, operation: Update}]
  name: canary
  namespace: prod
  resourceVersion: "12"
  uid: 0f1e
spec:
  poolRef: {group: inference.networking.k8s.io, kind: InferencePool, name: pool}
  rules:
  - matches:
    - model: {type: Exact, value: a}
    - model: {value: b}
    targets:
    - {modelRewrite: a-1, weight: 90}
    - {modelRewrite: a-2, weight: 10}
  - targets:
    - modelRewrite: c
status: {conditions: []}
"""


def parse(text: str) -> Declared:
    return parse_documents(text.encode(), "o.yaml", pool_name="pool")


@pytest.mark.parametrize(
    ("text", "priorities"),
    [
        ("", {}),
        ("---\n---\n# nothing\n", {}),
        (OBJECTIVE, {"batch": -2}),
        (OBJECTIVE.replace("priority: -2", ""), {"batch": 0}),
        (OBJECTIVE.replace("-2", "null"), {"batch": 0}),
        (OBJECTIVE + "---\n" + OBJECTIVE.replace("batch", "chat").replace("-2", "2147483647") + "---\n", {"batch": -2, "chat": 2147483647}),
        (OBJECTIVE + "---\n" + REWRITE.replace("name: r", "name: batch"), {"batch": -2}),
        (OBJECTIVE.replace("{name: batch}", "{name: batch, creationTimestamp: null}"), {"batch": -2}),
    ],
)
def test_objectives(text: str, priorities: dict[str, int]) -> None:
    assert parse(text).table.priorities == priorities


@pytest.mark.parametrize("time", ['"2026-01-02T03:04:05Z"', "2026-01-02T03:04:05Z"])
def test_an_object_as_kubernetes_stores_it(time: str) -> None:
    (rewrite,) = parse(STORED.replace('"2026-01-02T03:04:05Z"', time)).table.rewrites
    assert rewrite.name == "canary"
    assert rewrite.created == datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
    assert rewrite.rules == [Rule(["a", "b"], [Target("a-1", 90), Target("a-2", 10)]), Rule([], [Target("c")])]


def test_objects_for_other_pools_are_not_used_and_that_is_said(caplog: pytest.LogCaptureFixture) -> None:
    other = STORED.replace("name: pool}", "name: elsewhere}")
    declared = parse(OBJECTIVE + "---\n" + other)
    assert (declared.table.rewrites, declared.skipped) == ((), 1)
    assert "spec.poolRef.name: 'canary' is for pool 'elsewhere', not 'pool': it is not used" in caplog.text


def test_targets_without_a_weight_beside_some_that_have_one_are_warned_of(caplog: pytest.LogCaptureFixture) -> None:
    parse(STORED)
    assert not caplog.records
    parse(STORED.replace(", weight: 10", ""))
    assert "o.yaml:19: spec.rules[0].targets: some targets have a weight; these have none and get no request: a-2" in caplog.text


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (OBJECTIVE.replace("v1alpha2", "v1"), "o.yaml:1: apiVersion: 'llm-d.ai/v1' is not known; expected llm-d.ai/v1alpha2 or "),
        ("kind: InferenceObjective\n", "o.yaml:1: apiVersion: 'None' is not known"),
        (OBJECTIVE.replace("kind: InferenceO", "kind: O"), "kind: 'Objective' is not known; did you mean 'InferenceObjective'?"),
        (OBJECTIVE.replace("kind: InferenceObjective", "kind: []"), "o.yaml:2: kind: '[]' is not known"),
        (OBJECTIVE + "---\n" + OBJECTIVE, "o.yaml:8: metadata.name: 'batch': another InferenceObjective has this name"),
        (OBJECTIVE + "---\n" + OBJECTIVE.replace("priority", "prority"), "o.yaml:9: spec.prority: "),
        (OBJECTIVE.replace("priority", "prority"), "did you mean 'priority'?"),
        (OBJECTIVE.replace("-2", "high"), "o.yaml:4: spec.priority: Expected `int | null`, got `str`; found 'high'"),
        (OBJECTIVE.replace("-2", "2147483648"), "o.yaml:4: spec.priority: "),
        (OBJECTIVE.replace("{name: batch}", "{}"), "o.yaml:3: metadata: Object missing required field `name`"),
        (OBJECTIVE.replace("{name: batch}", "{name: b, creationTimestamp: 2026-01-01 00:00:00}"), "metadata.creationTimestamp: "),
        (REWRITE.replace("modelRewrite: t", "modelRewrite: ''"), "o.yaml:7: spec.rules[0].targets[0].modelRewrite: "),
        (REWRITE.replace("modelRewrite: t", "{modelRewrite: t, weight: 0}"), "spec.rules[0].targets[0].weight: "),
        (REWRITE.replace("modelRewrite: t", "{modelRewrite: t, weight: 1000001}"), "spec.rules[0].targets[0].weight: "),
        (REWRITE.replace("\n    - modelRewrite: t", " []"), "o.yaml:6: spec.rules[0].targets: "),
        (HEAD + "InferenceModelRewrite\nmetadata: {name: r}\nspec: {rules: []}\n", "o.yaml:4: spec.rules: "),
        (STORED.replace("type: Exact", "type: Prefix"), "o.yaml:17: spec.rules[0].matches[0].model.type: "),
        (STORED.replace("kind: InferencePool", "kind: Pool"), "o.yaml:14: spec.poolRef.kind: 'Pool' is not known; expected InferencePool"),
        (STORED.replace("group: inference.networking.k8s.io", "group: apps"), "o.yaml:14: spec.poolRef.group: 'apps' is not known"),
        (OBJECTIVE + "---\n- 1\n", "o.yaml:6: expected a mapping at the top level, got list"),
        ("a: [", "o.yaml:1: not valid YAML"),
        (OBJECTIVE + "kind: x\n", "o.yaml:5: not valid YAML: key 'kind' is given twice"),
        ("#" * (1024 * 1024 + 1), "o.yaml: expected at most 1048576 bytes"),
    ],
)
def test_errors_name_the_place(text: str, message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parse(text)
    assert message in str(caught.value)


def test_a_file_that_is_not_text() -> None:
    with pytest.raises(ConfigError, match=r"o\.yaml: expected UTF-8"):
        parse_documents(b"\xff", "o.yaml", pool_name="pool")
