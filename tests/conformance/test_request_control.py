"""Request-control plugins from outside: what a request has cost, and who sent it (contract sections 4.5 and 10.2)."""

from __future__ import annotations

import json
from typing import Any

import pytest
from envoy_data_plane.envoy.service.ext_proc.v3 import ProcessingResponse

from tests.conformance.setting import Setting, setting
from tests.conformance.test_hermetic import EVENT_USAGE, completion, ends_idle
from tests.support.ext_proc import POST, request_body, request_headers, response_body, response_headers
from tests.support.model_server import Load

COST = "x-gateway-inference-request-cost"
REPORTER = f"""\
- name: total-tokens-cost-reporter
  type: request-attribute-reporter
  parameters:
    attributes:
    - key:
        namespace: envoy.lb
        name: {COST}
      expression: |
        usage.completion_tokens
      condition: "has(usage.completion_tokens)"
"""
JSON_ANSWER = json.dumps(
    {
        "choices": [{"finish_reason": "stop", "index": 0, "message": {"content": "Hello! How can I help?", "role": "assistant"}}],
        "id": "chatcmpl-1", "model": "modelName", "object": "chat.completion",
        "usage": {"completion_tokens": 10, "prompt_tokens": 32, "total_tokens": 42},
    }
).encode()  # fmt: skip


def told(reply: ProcessingResponse) -> dict[str, Any]:
    """The dynamic metadata of a reply."""
    return reply.dynamic_metadata.to_dict() if reply.dynamic_metadata is not None else {}


@pytest.mark.parametrize(
    ("content_type", "pieces", "cost"),
    [
        ("application/json", [JSON_ANSWER], 10),
        ("application/json", [JSON_ANSWER[:50], JSON_ANSWER[50:], b""], 10),
        ("application/json", [b'{"choices":[]}'], None),
        ("text/event-stream", [b"data: {}\n\n", EVENT_USAGE + b"\n\n", b""], 10),
        ("text/event-stream", [b"data: {}\n\n", b"data: [DONE]\n\n"], None),
    ],
)
@pytest.mark.parametrize("flags", [(), ("--response-metrics=false",)])
async def test_the_cost_goes_out_with_the_last_reply_and_no_other(
    content_type: str, pieces: list[bytes], cost: int | None, flags: tuple[str, ...]
) -> None:
    async with setting(Load(0, 0.1), more=REPORTER, flags=flags) as s, s.client.stream() as stream:
        await stream.send(request_headers(POST), request_body(completion("modelName", "hello")))
        await stream.expect(2)
        answers = [response_body(piece, end=i == len(pieces) - 1) for i, piece in enumerate(pieces)]
        await stream.send(response_headers({":status": "200", "content-type": content_type}), *answers)
        await stream.half_close()
        *earlier, last = await stream.rest()
        assert [told(reply) for reply in earlier] == [{}] * len(earlier)
        assert told(last) == ({} if cost is None else {"envoy.lb": {COST: cost}})
        await ends_idle(s)
        assert (await s.picker.metrics()).value("fairlead_request_attribute_errors_total") == 0


async def test_a_client_that_leaves_gets_no_cost_and_leaves_nothing_behind() -> None:
    async with setting(Load(0, 0.1), more=REPORTER) as s:
        async with s.client.stream() as stream:
            await stream.send(request_headers(POST), request_body(completion("modelName")))
            await stream.expect(2)
            await stream.send(response_headers({":status": "200", "content-type": "text/event-stream"}))
            await stream.send(response_body(EVENT_USAGE + b"\n\n", end=False))
            assert [told(reply) for reply in await stream.expect(2)] == [{}, {}]
            stream.cancel()
        await ends_idle(s)


# ---- who asks


async def fairness_id(s: Setting, headers: dict[str, str]) -> str:
    """Under which one request with these headers is counted."""
    before = {sample.labels["fairness_id"]: sample.value for sample in (await s.picker.metrics()).find("llm_d_epp_request_total")}
    async with s.client.stream() as stream:
        await stream.send(request_headers({**POST, **headers}), request_body(completion("m")))
        await stream.expect(2)
        await stream.send(response_headers({":status": "200"}, end=True))
        await stream.half_close()
        await stream.rest()
    after = {sample.labels["fairness_id"]: sample.value for sample in (await s.picker.metrics()).find("llm_d_epp_request_total")}
    (changed,) = [name for name, count in after.items() if count != before.get(name, 0)]
    return changed


AGENTS = """\
- type: agent-identity
  parameters: {additionalSessionHeaders: [x-my-agent]}
- type: session-id-producer
  parameters: {cookieName: sid}
"""


async def test_fairness_header_before_agent_before_default() -> None:
    async with setting(Load(0, 0.0), more=AGENTS, flags=["--allow-experimental-plugins"]) as s:
        assert await fairness_id(s, {}) == "default-flow"
        assert await fairness_id(s, {"session-id": "agent-1"}) == "agent-1"
        assert await fairness_id(s, {"x-my-agent": "agent-2"}) == "agent-2"
        assert await fairness_id(s, {"x-my-agent": "agent-2", "x-claude-code-session-id": "agent-3"}) == "agent-3"
        assert await fairness_id(s, {"session_id": "agent-1", "x-llm-d-inference-fairness-id": "team"}) == "team"
        assert await fairness_id(s, {"session_id": "agent-1", "x-gateway-inference-fairness-id": "older"}) == "older"
        assert await fairness_id(s, {"cookie": "sid=only-a-session"}) == "default-flow"
        await ends_idle(s)
