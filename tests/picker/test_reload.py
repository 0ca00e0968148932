"""Another configuration while the picker runs: streams go on, state stays, and what is bad is kept out."""

from __future__ import annotations

import asyncio
from itertools import count
from pathlib import Path

import pytest

from picker.core import Core
from picker.errors import ConfigError
from picker.exchange import Cause, Exchange
from picker.settings import parse
from picker.yaml_source import YamlSource
from tests.picker.scheduling.pool import idle, request
from tests.picker.world import P
from tests.support.prometheus import Page

_numbers = count()

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


SLOW = """
class Slow:
    timeout_s = 100.0
    produces = ("slow",)

    def __init__(self, name, parameters, handle):
        self.log = []
        self.going = None

    async def prepare(self, request):
        import asyncio
        self.going = asyncio.get_running_loop().create_future()
        self.log.append("asked")
        await self.going
        self.log.append("answered")

    async def close(self):
        self.log.append("closed")

    def score(self, request, candidates):
        raise KeyError
"""


async def settle() -> None:
    for _ in range(10):
        await asyncio.sleep(0)


def with_plugin(tmp_path: Path) -> tuple[Core, str]:
    module = f"reload_{next(_numbers)}"
    (tmp_path / f"{module}.py").write_text(SLOW)
    file = tmp_path / "epp.yaml"
    text = HEAD + f"plugins: [{{type: {module}.Slow}}]\n"
    file.write_text(text)
    return Core(parse(["--endpoints", "127.0.0.1:1", "--config-file", str(file), "--plugin-path", str(tmp_path)])), text


@pytest.mark.parametrize("stop", [False, True])
async def test_a_producer_that_is_replaced_is_closed_when_its_requests_have_ended(tmp_path: Path, stop: bool) -> None:
    made, text = with_plugin(tmp_path)
    (built,) = [b for b in made.pipeline.built.values() if hasattr(b.plugin, "prepare")]
    plugin, done = built.plugin, []
    assert made.pipeline.preparation is not None
    made.pipeline.preparation(request(), lambda: done.append(1))
    await settle()
    made.reload(YamlSource(text + "# the same plugin\n", "x"))
    made.reload(YamlSource(TWO, "x"))
    await settle()
    assert plugin.log == ["asked"], "a request that came before both reloads still waits for it"
    if stop:
        await made.retirement.close()
        assert (plugin.log, done) == (["asked", "closed"], [])
    else:
        plugin.going.set_result(None)
        await settle()
        assert (plugin.log, done) == (["asked", "answered", "closed"], [1])
        await made.retirement.close()


async def test_a_producer_that_nobody_waits_for_is_closed_at_once(tmp_path: Path) -> None:
    made, text = with_plugin(tmp_path)
    (plugin,) = [b.plugin for b in made.pipeline.built.values() if hasattr(b.plugin, "prepare")]
    made.reload(YamlSource(text + "# the same plugin\n", "x"))
    await settle()
    assert plugin.log == []
    made.reload(YamlSource(TWO, "x"))
    await settle()
    assert plugin.log == ["closed"]


async def test_gauges_of_plugins_that_are_gone_are_forgotten(tmp_path: Path) -> None:
    made, text = with_plugin(tmp_path)
    (guard,) = made.pipeline.guards
    (plugin,) = [b.plugin for b in made.pipeline.built.values() if hasattr(b.plugin, "prepare")]
    for _ in range(5):
        plugin.score(request(), idle(2).candidates())

    def shown(name: str) -> dict[str, float]:
        made.refresh_gauges()
        found = Page(made.metrics.registry).find(name)
        return {s.labels.get("extension_point", s.labels["plugin_name"]): s.value for s in found}

    assert guard.taken_out == ["Scorer"]
    assert shown("fairlead_plugin_taken_out") == {"AsyncDataProducer": 0, "Scorer": 1}
    with pytest.raises(ConfigError):
        made.reload(YamlSource(text + "saturationDetector: {pluginRef: nothing}\n", "x"))
    assert shown("fairlead_plugin_taken_out") == {"AsyncDataProducer": 0, "Scorer": 1}, "what is refused changes nothing"
    made.reload(YamlSource(TWO, "x"))
    assert shown("fairlead_plugin_taken_out") == {}
    assert shown("fairlead_prefix_indexer_bytes") == {"approx-prefix-cache-producer": 0}
    made.reload(YamlSource(HEAD, "x"))
    assert shown("fairlead_prefix_indexer_bytes") == {}


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
