"""Where requests go: spread over the servers, back to a prefix that is cached, to an adapter that is loaded."""

from __future__ import annotations

import asyncio
import hashlib
from collections import Counter

import httpx

from tests.e2e.requests import CHAT, MODEL, chat_body, events, open_stream, request_id, unique_text
from tests.support.envoy_stack import IN_FLIGHT, EnvoyStack, wait_for
from tests.support.prometheus import metrics

SERVER = "x-sim-endpoint"


async def _chat(client: httpx.AsyncClient, text: str, **more: object) -> str:
    """Send one chat; the server that answered."""
    answer = await client.post(CHAT, json=chat_body(text, **more))  # type: ignore[arg-type]
    assert answer.status_code == 200, answer.text
    return answer.headers[SERVER]


async def test_two_hundred_requests_at_once_all_succeed_on_all_servers(stack: EnvoyStack, http: httpx.AsyncClient) -> None:
    async def ask(number: int) -> tuple[str, int]:
        body = chat_body(f"{number} {unique_text(3)}", max_tokens=20, stream=number % 2 == 0)
        if body["stream"]:
            body["stream_options"] = {"include_usage": True}
        answer = await http.post(CHAT, json=body)
        assert answer.status_code == 200, answer.text
        usage = list(events(answer.text))[-1]["usage"] if body["stream"] else answer.json()["usage"]
        return answer.headers[SERVER], usage["completion_tokens"]

    answers = await asyncio.gather(*[ask(number) for number in range(200)])
    assert {tokens for _, tokens in answers} == {20}
    assert sorted({server for server, _ in answers}) == sorted(stack.servers)


async def test_a_conversation_stays_with_the_server_that_has_its_beginning(stack: EnvoyStack, http: httpx.AsyncClient) -> None:
    beginning = unique_text(200)
    home = await _chat(http, beginning)
    for turn in range(4):
        assert await _chat(http, f"{beginning} and then {turn}") == home
    cached = (await http.post(CHAT, json=chat_body(beginning))).json()["usage"]["prompt_tokens_details"]["cached_tokens"]
    assert cached > 100


async def test_prompts_with_nothing_in_common_spread(stack: EnvoyStack, http: httpx.AsyncClient) -> None:
    servers = Counter([await _chat(http, unique_text(100)) for _ in range(40)])
    assert sorted(servers) == sorted(stack.servers)


async def test_requests_for_an_adapter_go_where_it_runs(stack: EnvoyStack, http: httpx.AsyncClient) -> None:
    """The other servers would answer 404: only one of them has the adapter."""
    home, adapter = stack.servers[1], "pilot-adapter"
    async with httpx.AsyncClient(base_url=f"http://{home}", timeout=30, trust_env=False) as server:
        loaded = await server.post("/v1/load_lora_adapter", json={"lora_name": adapter, "lora_path": "/adapters/pilot"})
        assert loaded.status_code == 200, loaded.text
        # Servers report the adapters of requests under way, so that one keeps it busy meanwhile.
        async with server.stream("POST", CHAT, json=chat_body(max_tokens=100_000, stream=True) | {"model": adapter}):
            await stack.until_endpoint(home, active_adapters=[adapter])
            for _ in range(10):
                answer = await http.post(CHAT, json=chat_body(unique_text(20)) | {"model": adapter})
                assert (answer.status_code, answer.headers[SERVER]) == (200, home), answer.text
                assert answer.json()["model"] == adapter
        assert (await server.post("/v1/unload_lora_adapter", json={"lora_name": adapter})).status_code == 200
    await stack.until_endpoint(home, active_adapters=[])


async def test_the_load_of_open_streams_is_seen_while_they_run(stack: EnvoyStack, http: httpx.AsyncClient) -> None:
    async with open_stream(http, max_tokens=100_000) as response:
        home = response.headers[SERVER]
        await stack.until_endpoint(home, in_flight_requests=1, running=1)
        page = await metrics(f"{stack.settings.picker_url}/metrics")
        # The tokens are those of the prompt, which are worked off when the first token of the answer comes.
        assert {name: page.value(name) for name in IN_FLIGHT} == dict.fromkeys(IN_FLIGHT, 1) | {"llm_d_epp_inflight_tokens": 0}
    await stack.until_endpoint(home, in_flight_requests=0, running=0)


async def test_a_prompt_of_five_megabytes_is_served(stack: EnvoyStack, http: httpx.AsyncClient) -> None:
    """Words of 16 letters, which the simulator takes for a token each."""
    word = hashlib.sha256(unique_text(1).encode()).hexdigest()[:16]
    words = 5_000_000 // 17
    identity = request_id()
    body = {"model": MODEL, "prompt": " ".join([word] * words), "max_tokens": 3}
    answer = await http.post("/v1/completions", json=body, headers={"x-request-id": identity})
    assert answer.status_code == 200, answer.text[:1000]
    assert answer.json()["usage"]["prompt_tokens"] == words
    assert (await stack.decision(identity))["prompt_tokens"] == words


async def test_a_prompt_beyond_the_context_is_refused_in_the_servers_own_words(stack: EnvoyStack, http: httpx.AsyncClient) -> None:
    identity = request_id()
    body = {"model": MODEL, "prompt": "a " * 2_500_000, "max_tokens": 3}
    answer = await http.post("/v1/completions", json=body, headers={"x-request-id": identity})
    assert answer.status_code == 400
    assert answer.json()["error"]["message"].startswith(
        "This model's maximum context length is 400000 tokens. However, your prompt contains 2500000"
    )
    record = await stack.decision(identity)
    assert (record["status"], record["cause"]) == (400, "model_server_error")


async def test_the_same_bytes_arrive_as_from_the_server_itself(stack: EnvoyStack, http: httpx.AsyncClient) -> None:
    body = chat_body(unique_text(4), max_tokens=50, stream=True, stream_options={"include_usage": True, "continuous_usage_stats": True})
    headers = {"x-request-id": request_id()}
    through = await http.post(CHAT, json=body, headers=headers)

    def text(answer: httpx.Response) -> list[object]:
        return [{**event, "created": 0} for event in events(answer.text)]

    async def same() -> str | None:
        async with httpx.AsyncClient(timeout=30, trust_env=False) as client:
            direct = await client.post(f"http://{through.headers[SERVER]}{CHAT}", json=body, headers=headers)
        return None if text(direct) == text(through) else f"{text(direct)} is not {text(through)}"

    # Chunks hold as many tokens as were ready when they were written, which is not always one.
    await wait_for(same)
