"""Requests that are wrong in some way: each gets a clear answer, and the picker goes on."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.e2e.conftest import BODY_LIMIT
from tests.e2e.raw import chunked, send_raw
from tests.e2e.requests import CHAT, MODEL, chat_body, request_id
from tests.support.envoy_stack import EnvoyStack

JSON = {"content-type": "application/json"}
MESSAGES = [{"role": "user", "content": "Hello"}]
MIB = 1 << 20


@pytest.mark.parametrize(
    ("path", "body", "message"),
    [
        (CHAT, b"not json", "error unmarshaling request bodyMap: invalid character 'o' in literal null (expecting 'u')"),
        (CHAT, b'{"model": "demo-model", ', "error unmarshaling request bodyMap: unexpected end of JSON input"),
        (CHAT, b"{} {}", "error unmarshaling request bodyMap: invalid character '{' after top-level value"),
        (CHAT, b"[1]", "error unmarshaling request bodyMap: json: cannot unmarshal array into Go value of type map[string]interface {}"),
        (CHAT, b"{}", "invalid chat completions request: must have valid messages field"),
        (CHAT, {"model": MODEL}, "invalid chat completions request: must have valid messages field"),
        (CHAT, {"model": MODEL, "messages": "Hello"}, "invalid chat completions request: must have valid messages field"),
        (CHAT, {"messages": MESSAGES}, "model not found in request body"),
        (CHAT, {"model": "", "messages": MESSAGES}, "model not found in request body"),
        (CHAT, {"model": 7, "messages": MESSAGES}, "model not found in request body"),
        ("/v1/completions", {"model": MODEL}, "invalid completions request: must have prompt field"),
        ("/v1/embeddings", {"model": MODEL}, "invalid embeddings request: must have input field"),
        ("/v1/responses", {"model": MODEL}, "invalid responses request: must have input field"),
        ("/v1/messages", {"model": MODEL, "messages": []}, "invalid messages request: must have at least one message"),
    ],
)
async def test_a_body_that_cannot_be_used_is_refused_in_the_words_of_the_contract(
    http: httpx.AsyncClient, stack: EnvoyStack, path: str, body: bytes | dict[str, Any], message: str
) -> None:
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    identity = request_id()
    answer = await http.post(path, content=content, headers=JSON | {"x-request-id": identity})
    assert (answer.status_code, answer.text) == (400, f"inference error: BadRequest - {message}")
    assert "x-sim-endpoint" not in answer.headers
    assert await stack.decisions_of(identity) == 0


@pytest.mark.parametrize(
    "body",
    [
        {"model": MODEL, "messages": [7]},
        {"model": MODEL, "messages": MESSAGES, "max_tokens": "many"},
        {"model": MODEL, "messages": MESSAGES, "max_tokens": -1},
        {"model": MODEL, "messages": MESSAGES, "stream": "yes"},
    ],
)
async def test_wrong_types_are_refused_by_the_picker_or_by_the_server(http: httpx.AsyncClient, body: dict[str, Any]) -> None:
    answer = await http.post(CHAT, json=body)
    assert answer.status_code == 400
    assert answer.text.startswith(("inference error: BadRequest - ", '{"error":'))


@pytest.mark.parametrize("content", [b"\xff\xfe\x00", b"\0" * 1000, b'{"model": "\xff"}', b'"' * 100_000, b"[" * 100_000])
async def test_binary_and_hostile_bodies_are_refused(http: httpx.AsyncClient, content: bytes) -> None:
    answer = await http.post(CHAT, content=content, headers=JSON)
    assert (answer.status_code, answer.text.split(" - ")[0]) == (400, "inference error: BadRequest")


async def test_an_empty_body_is_like_none_and_gets_the_servers_own_answer(http: httpx.AsyncClient, stack: EnvoyStack) -> None:
    """Envoy says of `content-length: 0` what it says of a GET: the request ends with its headers. There is nothing to decide by."""
    answer = await http.post(CHAT, content=b"", headers=JSON)
    assert answer.status_code == 400
    assert "JSON decode error" in answer.json()["error"]["message"]
    assert answer.headers["x-sim-endpoint"] in stack.servers


async def test_an_empty_body_of_chunks_is_refused(http: httpx.AsyncClient) -> None:
    """Here the end comes after the headers, as a body of no bytes."""

    async def nothing() -> AsyncIterator[bytes]:
        if False:
            yield b""

    answer = await http.post(CHAT, content=nothing(), headers=JSON)
    assert (answer.status_code, answer.text) == (
        400,
        "inference error: BadRequest - error unmarshaling request bodyMap: unexpected end of JSON input",
    )


def _memory_peak(pid: int) -> int:
    """The most memory a process ever held, in bytes."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM:"))


TOO_LARGE = f"inference error: PayloadTooLarge - the request body is larger than the limit of {BODY_LIMIT} bytes".encode()


async def test_a_body_that_says_it_is_too_large_is_refused_before_it_is_sent(stack: EnvoyStack) -> None:
    head = f"POST {CHAT} HTTP/1.1\r\nhost: gateway\r\ncontent-length: {BODY_LIMIT + 1}\r\n\r\n".encode()
    answer = await send_raw(stack.settings.port, [head])
    assert (answer.status, answer.body) == (413, TOO_LARGE)


async def test_a_hundred_megabytes_in_chunks_are_refused_without_being_held(stack: EnvoyStack) -> None:
    peak = _memory_peak(stack.picker.child.pid)
    head = f"POST {CHAT} HTTP/1.1\r\nhost: gateway\r\ntransfer-encoding: chunked\r\n\r\n".encode()
    answer = await send_raw(stack.settings.port, [head, *[chunked(b" " * MIB)] * 100, b"0\r\n\r\n"])
    assert (answer.status, answer.body) == (413, TOO_LARGE)
    # What fills the buffers of Envoy and of the sockets has been sent in vain, but not all of it.
    assert answer.sent < 60
    assert _memory_peak(stack.picker.child.pid) - peak < 40 * MIB


async def test_a_body_just_within_the_limit_is_served(http: httpx.AsyncClient) -> None:
    body = json.dumps(chat_body()).encode()
    answer = await http.post(CHAT, content=body + b" " * (BODY_LIMIT - len(body)), headers=JSON)
    assert answer.status_code == 200, answer.text


async def test_a_path_nobody_knows_is_passed_and_so_is_the_servers_404(http: httpx.AsyncClient) -> None:
    for answer in (await http.post("/v2/nothing", content=b"anything"), await http.get("/v2/nothing")):
        assert (answer.status_code, answer.json()) == (404, {"detail": "Not Found"})
        assert "x-sim-endpoint" in answer.headers


async def test_a_model_nobody_knows_is_the_servers_404_unchanged(http: httpx.AsyncClient, stack: EnvoyStack) -> None:
    identity = request_id()
    answer = await http.post(CHAT, json=chat_body() | {"model": "no-such-model"}, headers={"x-request-id": identity})
    async with httpx.AsyncClient(timeout=30, trust_env=False) as client:
        direct = await client.post(f"http://{answer.headers['x-sim-endpoint']}{CHAT}", json=chat_body() | {"model": "no-such-model"})
    assert (answer.status_code, answer.content) == (404, direct.content)
    assert answer.headers["content-type"] == direct.headers["content-type"]
    record = await stack.decision(identity)
    assert (record["cause"], record["status"]) == ("model_server_error", 404)


async def test_get_and_head_go_to_some_server(http: httpx.AsyncClient) -> None:
    got = await http.get("/v1/models")
    assert (got.status_code, got.json()["data"][0]["id"]) == (200, MODEL)
    head = await http.head("/v1/models")
    # The simulator answers 405 to methods it does not know; what matters is that its answer comes through.
    assert (head.status_code, head.content) == (405, b"")
    assert "x-sim-endpoint" in head.headers


async def test_a_very_long_path_and_many_headers_are_answered(http: httpx.AsyncClient) -> None:
    answer = await http.post(f"{CHAT}?x={'y' * 8_000}", json=chat_body(), headers={f"x-h-{n}": "v" * 100 for n in range(60)})
    assert answer.status_code == 200


async def test_more_headers_than_envoy_takes_end_the_connection_and_nothing_else(http: httpx.AsyncClient, stack: EnvoyStack) -> None:
    """Envoy would answer 431, but drops the stream before the picker has let that answer pass."""
    lines = "".join([f"x-h-{n}: v\r\n" for n in range(150)])
    with pytest.raises((ConnectionError, asyncio.IncompleteReadError)):
        await send_raw(stack.settings.port, [f"GET /v1/models HTTP/1.1\r\nhost: gateway\r\n{lines}\r\n".encode()])
    assert (await http.get("/v1/models")).status_code == 200
