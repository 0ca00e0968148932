"""Objectives and model rewrites from a file, behind the real Envoy: the client sees its own model's name, whichever one answers."""

from __future__ import annotations

from pathlib import Path

from tests.e2e.conftest import StartStack
from tests.e2e.requests import CHAT, MODEL, chat_body, events, request_id
from tests.support.prometheus import metrics

ALIAS = "my-own-name-for-it"
STABLE, CANARY = "review-stable", "review-canary"
OBJECTIVES = f"""\
apiVersion: llm-d.ai/v1alpha2
kind: InferenceObjective
metadata: {{name: chat}}
spec: {{priority: 3}}
---
apiVersion: llm-d.ai/v1alpha2
kind: InferenceModelRewrite
metadata: {{name: review}}
spec:
  rules:
  - matches:
    - model: {{value: {ALIAS}}}
    targets:
    - {{modelRewrite: {STABLE}, weight: 90}}
    - {{modelRewrite: {CANARY}, weight: 10}}
  - targets:
    - modelRewrite: {MODEL}
"""
REQUESTS = 20


async def test_clients_get_their_models_name_back_from_every_target(start_stack: StartStack, tmp_path: Path) -> None:
    file = tmp_path / "objectives.yaml"
    file.write_text(OBJECTIVES)
    # The names a server goes by; it answers under the one it was asked for, and knows no alias.
    sim_args = ["--served-model-name", MODEL, STABLE, CANARY, "--time-to-first-token-ms=1", "--inter-token-latency-ms=1"]
    stack = await start_stack(sims=1, sim_args=sim_args, picker_args=[f"--objectives-file={file}"])
    async with stack.client() as client:
        chat = {"x-llm-d-inference-objective": "chat"}
        targets: list[str] = []
        for number in range(REQUESTS):
            identity = request_id()
            body = chat_body(stream=number % 2 == 1) | {"model": ALIAS}
            answer = await client.post(CHAT, json=body, headers={**chat, "x-request-id": identity})
            assert answer.status_code == 200, answer.text
            named = {event["model"] for event in events(answer.text)} if number % 2 else {answer.json()["model"]}
            assert named == {ALIAS}
            record = await stack.decision(identity)
            assert record["model"] == ALIAS
            targets.append(record["target_model"])
        assert set(targets) <= {STABLE, CANARY}

        # The generic rule: a model that no server knows, and none at all.
        answer = await client.post(CHAT, json=chat_body() | {"model": "unheard-of"})
        assert (answer.status_code, answer.json()["model"]) == (200, "unheard-of")
        body = chat_body()
        del body["model"]
        answer = await client.post(CHAT, json=body)
        assert (answer.status_code, answer.json()["model"]) == (200, MODEL)

        page = await metrics(f"http://127.0.0.1:{stack.settings.metrics_port}/metrics")
        counted = "llm_d_epp_model_rewrite_decisions_total"
        for target in (STABLE, CANARY):
            labels = {"model_rewrite_name": "review", "model_name": ALIAS, "target_model": target}
            assert page.value(counted, **labels) == targets.count(target)
        assert page.value(counted, model_rewrite_name="review", target_model=MODEL) == 2
        assert page.value("llm_d_epp_request_total", model_name=ALIAS, priority="3") == REQUESTS
