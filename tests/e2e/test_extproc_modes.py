"""The same picker behind Envoys that run ext_proc in other modes: those that can be served are, the others say what is wrong."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import httpx
import pytest

from tests.e2e.requests import CHAT, MODEL, chat_body, events, open_stream, request_id, unique_text
from tests.support.envoy_stack import EnvoyStack, Patch

FULL = "FULL_DUPLEX_STREAMED"
BUFFER_BYTES = 4 << 20


def ext_proc(change: Callable[[dict[str, Any]], None]) -> Patch:
    """A patch of the ext_proc filter alone, but for room to buffer a body in."""

    def patch(bootstrap: dict[str, Any]) -> None:
        (listener,) = bootstrap["static_resources"]["listeners"]
        listener["per_connection_buffer_limit_bytes"] = BUFFER_BYTES
        (chain,) = listener["filter_chains"][0]["filters"]
        change(chain["typed_config"]["http_filters"][0]["typed_config"])

    return patch


def modes(request: str, response: str) -> Patch:
    """Body modes; trailers are sent in full duplex only, as Envoy wants it."""

    def change(config: dict[str, Any]) -> None:
        config["processing_mode"].update(
            request_body_mode=request,
            response_body_mode=response,
            request_trailer_mode="SEND" if request == FULL else "SKIP",
            response_trailer_mode="SEND" if response == FULL else "SKIP",
        )

    return ext_proc(change)


def observing(config: dict[str, Any]) -> None:
    """Envoy sends everything and waits for nothing."""
    config["observability_mode"] = True
    config["processing_mode"].update(
        request_body_mode="STREAMED", response_body_mode="STREAMED", request_trailer_mode="SKIP", response_trailer_mode="SKIP"
    )


@asynccontextmanager
async def gateway(stack: EnvoyStack, patch: Patch) -> AsyncIterator[httpx.AsyncClient]:
    """A client of one more Envoy."""
    node = stack.patched_envoy(patch)
    await stack.start_extra(node)
    try:
        async with stack.client(base_url=f"http://{node.address}") as client:
            yield client
    finally:
        await node.cleanup()


@pytest.mark.parametrize(
    ("request_mode", "response_mode"),
    [
        (FULL, FULL),
        ("BUFFERED", "BUFFERED"),
        ("BUFFERED", "STREAMED"),
        ("BUFFERED", "NONE"),
        (FULL, "BUFFERED"),
        (FULL, "STREAMED"),
        (FULL, "NONE"),
        ("BUFFERED", FULL),
        ("BUFFERED_PARTIAL", "BUFFERED_PARTIAL"),
    ],
)
async def test_modes_that_show_the_whole_request_before_its_headers_leave_are_served(
    stack: EnvoyStack, request_mode: str, response_mode: str
) -> None:
    async with gateway(stack, modes(request_mode, response_mode)) as client:
        plain, streamed, aliased = request_id(), request_id(), request_id()
        prompt = unique_text(20_000)
        answer = await client.post(CHAT, json=chat_body(prompt), headers={"x-request-id": plain})
        assert answer.status_code == 200, answer.text
        assert answer.json()["usage"]["completion_tokens"] == 8
        record = await stack.decision(plain)
        assert (record["cause"], record["served"]) == ("completed", answer.headers["x-sim-endpoint"])

        body = chat_body(max_tokens=30, stream=True, stream_options={"include_usage": True})
        answer = await client.post(CHAT, json=body, headers={"x-request-id": streamed})
        assert list(events(answer.text))[-1]["usage"]["completion_tokens"] == 30
        record = await stack.decision(streamed)
        # Without the response body there is nothing to read usage from.
        assert (record["cause"], record["completion_tokens"]) == ("completed", None if response_mode == "NONE" else 30)

        headers = {"x-llm-d-model-name-rewrite": MODEL, "x-request-id": aliased}
        answer = await client.post(CHAT, json=chat_body() | {"model": "my-own-name-for-it"}, headers=headers)
        assert answer.status_code == 200, answer.text
        assert answer.json()["model"] == (MODEL if response_mode == "NONE" else "my-own-name-for-it")
        record = await stack.decision(aliased)
        assert (record["model"], record["target_model"]) == ("my-own-name-for-it", MODEL)

        refused = await client.post(CHAT, content=b"not json")
        assert (refused.status_code, refused.text.split(" - ")[0]) == (400, "inference error: BadRequest")
        assert (await client.get("/v1/models")).json()["data"][0]["id"] == MODEL


@pytest.mark.parametrize(("request_mode", "response_mode"), [("BUFFERED", "STREAMED"), (FULL, "STREAMED")])
async def test_a_client_that_leaves_is_noticed_in_other_modes_too(stack: EnvoyStack, request_mode: str, response_mode: str) -> None:
    """Not with response mode NONE: Envoy ends the ext_proc stream with the response headers, and the picker hears no more."""
    async with gateway(stack, modes(request_mode, response_mode)) as client:
        identity = request_id()
        async with open_stream(client, max_tokens=100_000, identity=identity) as response:
            await stack.until_endpoint(response.headers["x-sim-endpoint"], running=1, in_flight_requests=1)
        assert (await stack.decision(identity))["cause"] == "disconnected"


async def test_a_rewritten_model_is_restored_in_a_stream_of_every_mode(stack: EnvoyStack) -> None:
    for response_mode in (FULL, "STREAMED", "BUFFERED"):
        async with gateway(stack, modes("BUFFERED", response_mode)) as client:
            body = chat_body(max_tokens=20, stream=True) | {"model": "my-own-name-for-it"}
            answer = await client.post(CHAT, json=body, headers={"x-llm-d-model-name-rewrite": MODEL})
            assert {event["model"] for event in events(answer.text)} == {"my-own-name-for-it"}, response_mode


async def test_a_body_beyond_the_buffer_of_a_buffering_envoy_is_refused(stack: EnvoyStack) -> None:
    async with gateway(stack, modes("BUFFERED", "BUFFERED")) as client:
        body = json.dumps(chat_body("x" * (BUFFER_BYTES + 1))).encode()
        assert (await client.post(CHAT, content=body)).status_code in (413, 500)
        assert (await client.post(CHAT, json=chat_body())).status_code == 200


@pytest.mark.parametrize(
    ("request_mode", "reason"),
    [
        ("STREAMED", "STREAMED cannot be served: the request headers leave before the body is known"),
        ("NONE", "NONE cannot be served: the request body is not sent"),
    ],
)
async def test_modes_that_cannot_be_served_are_refused_with_what_to_set(stack: EnvoyStack, request_mode: str, reason: str) -> None:
    async with gateway(stack, modes(request_mode, "STREAMED")) as client:
        for _ in range(2):
            answer = await client.post(CHAT, json=chat_body())
            assert answer.status_code == 500
            assert answer.text == (
                f"inference error: Internal - ext_proc request_body_mode {reason}; set FULL_DUPLEX_STREAMED (or BUFFERED)"
            )
        # There is nothing to read in a request of headers only.
        assert (await client.get("/v1/models")).status_code == 200


async def test_an_envoy_that_only_observes_answers_an_error_at_once(stack: EnvoyStack) -> None:
    """It waits for no endpoint, and so has none."""
    async with gateway(stack, ext_proc(observing)) as client:
        for _ in range(2):
            assert (await client.post(CHAT, json=chat_body())).status_code == 503
        assert (await client.get("/v1/models")).status_code == 503
