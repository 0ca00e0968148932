"""Requests that queue in front of a full pool, through the real Envoy. One server, one request at a time."""

from __future__ import annotations

import asyncio
import contextlib
from pathlib import Path

import httpx
import pytest

from tests.e2e.conftest import SIM_ARGS, StartStack
from tests.e2e.requests import CHAT, chat_body, open_stream, unique_text
from tests.support.envoy_stack import EnvoyStack, wait_for
from tests.support.prometheus import metrics

LONG = 100_000
CONFIG = """\
apiVersion: llm-d.ai/v1alpha1
kind: EndpointPickerConfig
featureGates: [flowControl]
plugins:
- type: queue-scorer
- {type: concurrency-detector, parameters: {maxConcurrency: 1}}
schedulingProfiles:
- {name: default, plugins: [{pluginRef: queue-scorer}]}
flowControl:
  saturationDetector: {pluginRef: concurrency-detector}
  priorityBands:
  - {priority: 0, fairnessPolicyRef: round-robin-fairness-policy}
"""


async def _stack(start_stack: StartStack) -> EnvoyStack:
    return await start_stack(sims=1, sim_args=SIM_ARGS, config=CONFIG)


async def _queued(stack: EnvoyStack, wanted: int) -> None:
    """Wait until so many are in the queue."""

    async def reason() -> str | None:
        requests = (await stack.debug("/debug/flow"))["requests"]
        return None if requests == wanted else f"{requests} requests wait, not {wanted}"

    await wait_for(reason)


def _ask(client: httpx.AsyncClient, **headers: str) -> asyncio.Task[httpx.Response]:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return asyncio.create_task(client.post(CHAT, json=chat_body(unique_text(3)), headers=named))


async def _outcomes(stack: EnvoyStack) -> dict[str, float]:
    page = await metrics(f"{stack.settings.picker_url}/metrics")
    return {s.labels["outcome"]: s.value for s in page.find("llm_d_epp_flow_control_requests_total")}


async def test_a_full_pool_queues_and_what_waits_is_served_when_there_is_room(start_stack: StartStack) -> None:
    stack = await _stack(start_stack)
    async with stack.client() as client:
        async with open_stream(client, max_tokens=LONG):
            waiting = [_ask(client) for _ in range(3)]
            await _queued(stack, 3)
            assert not any(task.done() for task in waiting)
        answers = await asyncio.gather(*waiting)
    assert [answer.status_code for answer in answers] == [200] * 3
    assert await _outcomes(stack) == {"Dispatched": 4}


async def test_a_client_that_leaves_the_queue_is_forgotten(start_stack: StartStack) -> None:
    stack = await _stack(start_stack)
    async with stack.client() as client:
        async with open_stream(client, max_tokens=LONG):
            leaves, stays = _ask(client), _ask(client)
            await _queued(stack, 2)
            leaves.cancel()
            with pytest.raises(asyncio.CancelledError):
                await leaves
            await _queued(stack, 1)
        assert (await stays).status_code == 200
    assert await _outcomes(stack) == {"Dispatched": 2, "EvictedContextCancelled": 1}


async def test_one_that_has_waited_too_long_is_told_so(start_stack: StartStack) -> None:
    stack = await _stack(start_stack)
    async with stack.client() as client:
        async with open_stream(client, max_tokens=LONG):
            answer = await _ask(client, x_request_timeout_ms="200")
        assert answer.status_code == 429
        assert answer.headers["x-llm-d-request-dropped-reason"] == "rejected-ttl-expired"
        assert answer.text.startswith("inference error: ResourceExhausted - request timed out in queue: ")
    assert await _outcomes(stack) == {"Dispatched": 1, "EvictedTTL": 1}


async def test_flows_take_turns(start_stack: StartStack) -> None:
    """Three requests of one client do not keep that of another waiting for all of them."""
    stack = await _stack(start_stack)
    done: list[str] = []
    async with stack.client() as client:

        def ask(flow: str) -> asyncio.Task[httpx.Response]:
            task = _ask(client, x_llm_d_inference_fairness_id=flow)
            task.add_done_callback(lambda _: done.append(flow))
            return task

        async with open_stream(client, max_tokens=LONG):
            waiting = []
            for number, flow in enumerate(["greedy", "greedy", "greedy", "modest"], 1):
                waiting.append(ask(flow))
                await _queued(stack, number)
        answers = await asyncio.gather(*waiting)
    assert [answer.status_code for answer in answers] == [200] * 4
    assert done.index("modest") == 1, done


OBJECTIVES = "\n---\n".join(
    f"apiVersion: llm-d.ai/v1alpha2\nkind: InferenceObjective\nmetadata: {{name: {name}}}\nspec: {{priority: {priority}}}"
    for name, priority in (("urgent", 10), ("batch", -1))
)
OBJECTIVE = "x-llm-d-inference-objective"


async def test_a_higher_priority_goes_first(start_stack: StartStack, tmp_path: Path) -> None:
    file = tmp_path / "objectives.yaml"
    file.write_text(OBJECTIVES)
    stack = await start_stack(sims=1, sim_args=SIM_ARGS, config=CONFIG, picker_args=[f"--objectives-file={file}"])
    done: list[str] = []
    async with stack.client() as client:
        async with open_stream(client, max_tokens=LONG):
            waiting = []
            for number, name in enumerate(["batch", "batch", "urgent"], 1):
                waiting.append(_ask(client, **{OBJECTIVE: name}))
                waiting[-1].add_done_callback(lambda _, name=name: done.append(name))
                await _queued(stack, number)
        answers = await asyncio.gather(*waiting)
    assert [answer.status_code for answer in answers] == [200] * 3
    assert done == ["urgent", "batch", "batch"]


async def test_a_sheddable_stream_is_taken_away_for_a_request_that_matters_more(start_stack: StartStack, tmp_path: Path) -> None:
    file = tmp_path / "objectives.yaml"
    file.write_text(OBJECTIVES)
    flags = [f"--objectives-file={file}", "--allow-experimental-plugins"]
    stack = await start_stack(sims=1, sim_args=SIM_ARGS, config=CONFIG + "  enableEviction: true\n", picker_args=flags)
    body = chat_body(unique_text(4), max_tokens=LONG, stream=True)
    async with stack.client() as client, client.stream("POST", CHAT, json=body, headers={OBJECTIVE: "batch"}) as streamed:
        assert streamed.status_code == 200
        lines = streamed.aiter_lines()
        assert (await anext(lines)).startswith("data: ")
        assert (await _ask(client, **{OBJECTIVE: "urgent"})).status_code == 200
        rest: list[str] = []
        with contextlib.suppress(httpx.RemoteProtocolError, httpx.ReadError):  # the stream breaks off
            rest = [line async for line in lines]
        assert "data: [DONE]" not in rest
    page = await metrics(f"{stack.settings.picker_url}/metrics")
    flow = "llm_d_epp_flow_control_"
    assert page.value(flow + "revocations_issued_total", priority="-1") == 1
    assert page.value(flow + "revocations_total", outcome="confirmed") == 1
    gauges = [s for name in ("queue_size", "queue_bytes", "reclaim_target", "pending_reclaim") for s in page.find(flow + name)]
    assert gauges and all(s.value == 0 for s in gauges)
