"""Request attributes: CEL over usage, checked when loaded, reported once with the end of a good answer (contract section 4.5)."""

from __future__ import annotations

import logging
from typing import Any

import pytest

from picker.accounting.attribute_reporter import RequestAttributeReporter
from picker.errors import ConfigError, ParameterError
from picker.loader import load
from picker.metrics import Metrics
from picker.result import Response, Usage
from picker.yaml_source import YamlSource
from tests.picker.scheduling.pool import build, request

FULL = Usage(prompt_tokens=32, completion_tokens=10, total_tokens=42, cached_tokens=16, reasoning_tokens=4)


def one(expression: str, condition: str = "", **key: str) -> dict[str, Any]:
    return {"key": {"name": "cost", **key}, "expression": expression, **({"condition": condition} if condition else {})}


def reporter(*attributes: dict[str, Any]) -> RequestAttributeReporter:
    made = build(RequestAttributeReporter, {"attributes": list(attributes)})
    assert isinstance(made, RequestAttributeReporter)
    return made


def report(plugin: RequestAttributeReporter, usage: Usage | None, cause: str = "completed") -> Any:
    return plugin.response_complete(request(b"x"), Response(cause=cause, usage=usage))


@pytest.mark.parametrize(
    ("expression", "value"),
    [
        ("usage.completion_tokens", 10),
        ("usage.prompt_tokens + usage.completion_tokens", 42),
        ("usage.total_tokens", 42),
        ("usage.prompt_tokens + 4.0 * usage.completion_tokens", 72),
        ("usage.prompt_tokens + 4 * usage.completion_tokens", 72),  # CEL does not mix: these get integers
        ("usage.prompt_tokens * 0.1", 3),
        ("usage.prompt_tokens - usage.prompt_tokens_details.cached_tokens", 16),
        ("usage.completion_tokens_details.reasoning_tokens", 4),
        ("usage.prompt_tokens > 30 ? 2 : 1", 2),
        ("usage.prompt_tokens > 30.0 ? usage['prompt_tokens'] : 1.0", 32),
        ("int(usage.prompt_tokens) / 5", 6),
        ("usage.completion_tokens - usage.prompt_tokens", -22),
        ("7u", 7),
    ],
)
def test_a_number_from_usage(expression: str, value: int) -> None:
    assert report(reporter(one(expression)), FULL) == {"envoy.lb": {"cost": value}}


@pytest.mark.parametrize(
    ("condition", "usage", "reported"),
    [
        ("has(usage.completion_tokens)", FULL, True),
        ("has(usage.completion_tokens)", Usage(prompt_tokens=1), False),
        ("has(usage.completion_tokens)", None, False),
        ("has(usage.prompt_tokens) && usage.completion_tokens > 10", FULL, False),
        ("true", FULL, True),
        ("false", FULL, False),
    ],
)
def test_only_when_the_condition_is_met(condition: str, usage: Usage | None, reported: bool) -> None:
    plugin = reporter(one("usage.completion_tokens", condition))
    assert report(plugin, usage) == ({"envoy.lb": {"cost": 10}} if reported else None)
    assert plugin.failures.value == 0


def test_several_attributes_each_in_its_place() -> None:
    plugin = reporter(
        one("usage.prompt_tokens"),
        one("usage.completion_tokens", name="out"),
        one("usage.total_tokens", namespace="mine"),
        one("1", "false", name="never"),
    )
    assert report(plugin, FULL) == {"envoy.lb": {"cost": 32, "out": 10}, "mine": {"cost": 42}}


@pytest.mark.parametrize("cause", ["disconnected", "evicted", "model_server_error", "failed"])
def test_an_answer_that_ended_badly_has_no_cost(cause: str) -> None:
    assert report(reporter(one("1")), FULL, cause) is None


def test_a_value_that_cannot_be_computed_is_counted_and_logged_now_and_then(caplog: pytest.LogCaptureFixture) -> None:
    plugin = reporter(one("usage.completion_tokens"), one("100.0 / (usage.prompt_tokens - 1.0)", name="inf"), one("1", name="good"))
    with caplog.at_level(logging.WARNING):
        for _ in range(1000):
            assert report(plugin, Usage(prompt_tokens=1)) == {"envoy.lb": {"good": 1}}
    assert plugin.failures.value == 2000
    assert [record.args[1] for record in caplog.records if isinstance(record.args, tuple)] == ["cost", "inf"]


@pytest.mark.parametrize(
    ("attributes", "path", "message"),
    [
        ([], "attributes", "at least one"),
        ([{"expression": "1"}], "attributes[0].key.name", "name of a metadata key"),
        ([one("")], "attributes[0].expression", "expected a CEL expression, found none"),
        ([one("1"), one("2")], "attributes[1].key", "'cost' in 'envoy.lb' is reported twice"),
        ([one("1"), one("2", namespace="")], "attributes[1].key", "reported twice"),
        ([one("usage.prompt_tokens +")], "attributes[0].expression", "Syntax error"),
        ([one("usage.prompt_tokns")], "attributes[0].expression", "prompt_tokns"),
        ([one("nofun(1)")], "attributes[0].expression", "undeclared reference to 'nofun'"),
        ([one("usage")], "attributes[0].expression", "expected a number, but 'usage' is of type MAP"),
        ([one("usage.prompt_tokens > 1")], "attributes[0].expression", "of type BOOL"),
        ([one("usage.prompt_tokens_details")], "attributes[0].expression", "cannot be computed from a complete usage"),
        ([one("1", "usage.prompt_tokens")], "attributes[0].condition", "the result is of type DOUBLE"),
        ([one("1", "'a'")], "attributes[0].condition", "expected true or false"),
        ([one("1 / 0")], "attributes[0].expression", "divide by zero"),
        ([one("1.0 / 0.0")], "attributes[0].expression", "the result is inf"),
        ([one("9223372036854775807 + int(usage.prompt_tokens)")], "attributes[0].expression", "overflow"),
        ([one("[1, 2].map(x, x)[0]")], "attributes[0].expression", "'map' is not supported"),
        ([one("1" * 5000)], "attributes[0].expression", "at most 4096 characters, found 5000"),
    ],
)
def test_what_cannot_be_used_is_refused_with_its_place(attributes: list[dict[str, Any]], path: str, message: str) -> None:
    with pytest.raises(ParameterError) as error:
        reporter(*attributes)
    assert error.value.path == path
    assert message in str(error.value)


def test_the_place_is_told_with_its_line() -> None:
    text = """\
apiVersion: llm-d.ai/v1alpha1
kind: EndpointPickerConfig
plugins:
- type: request-attribute-reporter
  parameters:
    attributes:
    - key: {name: a}
      expression: usage.prompt_tokens
    - key: {name: b}
      expression: usage.tokens
"""
    with pytest.raises(ConfigError, match=r"^epp.yaml:10: plugins\[0\].parameters.attributes\[1\].expression: cannot be computed"):
        load(YamlSource(text, "epp.yaml"), Metrics())
