"""What a request has cost, as the real Envoy knows it when the request is over: dynamic metadata in its access log."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.conftest import CONFIG, SIM_ARGS, StartStack
from tests.e2e.requests import CHAT, chat_body, events, request_id
from tests.e2e.test_extproc_modes import gateway
from tests.support.envoy_stack import Patch
from tests.support.waiting import until

COST = "x-gateway-inference-request-cost"
REPORTER = f"""\
- type: request-attribute-reporter
  parameters:
    attributes:
    - key: {{name: {COST}}}
      expression: usage.prompt_tokens + 100.0 * usage.completion_tokens
      condition: has(usage.completion_tokens)
"""


def logging_to(path: Path) -> Patch:
    """An access log of request ids and costs."""
    line = {"id": "%REQ(X-REQUEST-ID)%", "cost": f"%DYNAMIC_METADATA(envoy.lb:{COST})%"}
    log = {
        "name": "envoy.access_loggers.file",
        "typed_config": {
            "@type": "type.googleapis.com/envoy.extensions.access_loggers.file.v3.FileAccessLog",
            "path": str(path),
            "log_format": {"json_format": line},
        },
    }

    def patch(bootstrap: dict[str, Any]) -> None:
        (listener,) = bootstrap["static_resources"]["listeners"]
        (chain,) = listener["filter_chains"][0]["filters"]
        chain["typed_config"]["access_log"] = [log]

    return patch


@pytest.mark.timeout(180)
async def test_the_cost_of_a_request_reaches_envoy(start_stack: StartStack, tmp_path: Path) -> None:
    text = CONFIG.replace("schedulingProfiles:", f"{REPORTER}schedulingProfiles:")
    stack = await start_stack(sims=1, sim_args=SIM_ARGS, config=text)
    path = tmp_path / "access.log"
    async with gateway(stack, logging_to(path)) as client:
        plain, streamed, unknown, failed = request_id(), request_id(), request_id(), request_id()
        answer = await client.post(CHAT, json=chat_body(max_tokens=5), headers={"x-request-id": plain})
        usage = answer.json()["usage"]
        body = chat_body(max_tokens=7, stream=True, stream_options={"include_usage": True})
        stream = await client.post(CHAT, json=body, headers={"x-request-id": streamed})
        (last,) = [event["usage"] for event in events(stream.text) if event.get("usage")]
        await client.post(CHAT, json=chat_body(stream=True), headers={"x-request-id": unknown})
        await client.post(CHAT, json={"model": "demo-model"}, headers={"x-request-id": failed})

        async def logged() -> bool:
            return path.exists() and len(path.read_text().splitlines()) >= 4

        await until(logged, "Envoy has written its access log")
    costs = {entry["id"]: entry["cost"] for entry in map(json.loads, path.read_text().splitlines())}
    assert costs == {
        plain: usage["prompt_tokens"] + 100 * usage["completion_tokens"],
        streamed: last["prompt_tokens"] + 100 * last["completion_tokens"],
        unknown: None,
        failed: None,
    }
    assert usage["completion_tokens"] == 5 and last["completion_tokens"] == 7
