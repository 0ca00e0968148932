"""Another configuration while the picker runs: streams go on, state stays, and what is bad is kept out."""

from __future__ import annotations

from pathlib import Path

import pytest

from picker.core import Core
from picker.errors import ConfigError
from picker.exchange import Cause, Exchange
from picker.settings import parse
from picker.yaml_source import YamlSource
from tests.picker.world import P

HEAD = "apiVersion: llm-d.ai/v1alpha1\nkind: EndpointPickerConfig\n"
TWO = HEAD + "plugins: [{type: prefix-cache-scorer}, {type: queue-scorer}]\n"
THREE = HEAD + "plugins: [{type: prefix-cache-scorer}, {type: queue-scorer}, {type: random-picker}]\n"
QUEUES = HEAD + "featureGates: [flowControl]\nflowControl: {maxRequests: %d}\n"


def core(text: str, tmp_path: Path) -> Core:
    file = tmp_path / "epp.yaml"
    file.write_text(text)
    made = Core(parse(["--endpoints", "127.0.0.1:1", "--config-file", str(file)]))
    pods = [P(0), P(1)]
    made.datastore.set_endpoints("test", [pod.endpoint for pod in pods])
    return made


def ask(made: Core, prompt: str = "x" * 600) -> Exchange:
    body = b'{"model":"m","prompt":"%b"}' % prompt.encode()
    exchange = made.director.handle({":path": "/v1/completions"}, body, None, request_id="r", received_s=0.0)
    assert isinstance(exchange, Exchange)
    return exchange


def test_a_reload_changes_decisions_and_keeps_what_was_learnt(tmp_path: Path) -> None:
    made = core(TWO, tmp_path)
    open_before = ask(made)
    index = made.pipeline.producers[0].index
    assert len(index) > 0
    made.reload(YamlSource(THREE, "x"))
    assert made.pipeline.producers[0].index is index
    after = ask(made)
    assert after.decision is not None and open_before.decision is not None
    assert [c.name for c in after.decision.result.columns] == ["prefix-cache-scorer", "queue-scorer"]
    profile = next(iter(made.director.stages.scheduler.profiles.values()))
    assert profile.picker.name == "random-picker"  # type: ignore[attr-defined]
    for exchange in (open_before, after):
        exchange.close(Cause.COMPLETED)
    assert all(state.load.requests == 0 for state in made.datastore.states())


@pytest.mark.parametrize(
    ("before", "after", "message"),
    [
        (TWO, HEAD + "plugins: [{type: nothing}]", "is not registered"),
        (TWO, TWO + "compat: reference\n", "compat: cannot be changed while the picker runs"),
        (TWO, QUEUES % 1, "flowControl cannot be switched while the picker runs"),
    ],
)
def test_what_cannot_be_used_changes_nothing(before: str, after: str, message: str, tmp_path: Path) -> None:
    made = core(before, tmp_path)
    stages, pipeline = made.director.stages, made.pipeline
    with pytest.raises(ConfigError, match=message):
        made.reload(YamlSource(after, "x"))
    assert made.director.stages is stages and made.pipeline is pipeline


def test_queues_go_on_with_other_limits(tmp_path: Path) -> None:
    made = core(QUEUES % 5, tmp_path)
    flow = made.flow
    made.reload(YamlSource(QUEUES % 7, "x"))
    assert made.flow is flow and flow is not None and flow.settings.max_requests == 7
    assert made.director.stages.flow is flow


def test_metrics_say_which_configuration_runs(tmp_path: Path) -> None:
    made = core(TWO, tmp_path)
    (before,) = made.metrics.config_info.cells
    made.reload(YamlSource(THREE, "x"))
    (after,) = made.metrics.config_info.cells
    assert before != after == (YamlSource(THREE, "y").sha256[:16],)
    made.config_reloaded(False)
    assert made.metrics.config_stale.cell().value == 1
    assert made.metrics.config_reload_errors.cell("config-file").value == 1
    made.config_reloaded(True)
    assert made.metrics.config_stale.cell().value == 0
