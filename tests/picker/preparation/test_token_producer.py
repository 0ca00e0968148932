"""Real tokens from a vLLM's render endpoints, in place of the estimate."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

import msgspec
import pytest
import pytest_asyncio

from picker.datalayer.http_reader import ReadError
from picker.errors import ParameterError
from picker.parsing.content import pack_token_ids
from picker.plugin import AsyncDataProducer
from picker.preparation.token_producer import TokenProducer
from picker.prompt import Medium, Prompt
from picker.request import InferenceRequest
from tests.picker.scheduling.pool import build, request

CHAT = {"model": "adapter", "messages": [{"role": "user", "content": "hi"}]}


class Vllm:
    """Answers render requests with what a test says, and remembers them."""

    def __init__(self) -> None:
        self.answer: bytes | None = b""
        self.status = b"200 OK"
        self.asked: list[tuple[str, Any]] = []
        self.connections = 0
        self.credentials: list[str] = []

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        try:
            while True:
                head = (await reader.readuntil(b"\r\n\r\n")).decode()
                self.credentials.append(head.partition("Authorization: ")[2].partition("\r\n")[0])
                size = int(head.lower().partition("content-length: ")[2].partition("\r\n")[0])
                self.asked.append((head.partition("\r\n")[0], json.loads(await reader.readexactly(size))))
                if self.answer is None:
                    await asyncio.Event().wait()
                    return
                writer.write(b"HTTP/1.1 " + self.status + b"\r\nContent-Length: %d\r\n\r\n" % len(self.answer) + self.answer)
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()


@pytest_asyncio.fixture
async def vllm() -> AsyncIterator[tuple[Vllm, str]]:
    made = Vllm()
    server = await asyncio.start_server(made.serve, "127.0.0.1", 0)
    yield made, f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    server.close()


def producer(url: str, **more: str) -> TokenProducer:
    made = build(TokenProducer, {"modelName": "base", "vllm": {"url": url, **more}})
    assert isinstance(made, TokenProducer) and isinstance(made, AsyncDataProducer) and made.asks
    return made


def asking(path: str, body: dict[str, Any], extra: int = 0) -> InferenceRequest:
    made = request(b"an estimate", model="adapter", extra=extra)
    made.path, made.payload = path, json.dumps(body).encode()
    return made


async def test_a_completion_gets_its_tokens(vllm: tuple[Vllm, str]) -> None:
    server, url = vllm
    server.answer = b'[{"token_ids":[1,2,3],"model":"base","sampling_params":{}},{"token_ids":[4294967295]}]'
    plugin = producer(url)
    asked = asking("/v1/completions?x=1", {"model": "adapter", "prompt": ["a", "b"], "stream": True})
    assert plugin.wants(asked)
    await plugin.prepare(asked)
    assert asked.body.prompt.data == pack_token_ids([1, 2, 3, 4294967295]) and asked.prompt_tokens == 4
    assert asked.body.model == "adapter"
    assert server.asked == [("POST /v1/completions/render HTTP/1.1", {"model": "base", "prompt": ["a", "b"], "stream": True})]
    await plugin.prepare(asked)
    assert server.connections == 1
    await plugin.close()


async def test_a_chat_gets_its_tokens_and_a_prefix_of_the_url(vllm: tuple[Vllm, str]) -> None:
    server, url = vllm
    server.answer = b'{"token_ids":[7,8],"features":null}'
    plugin = producer(url + "/render-service/")
    asked = asking("/v1/chat/completions", CHAT)
    await plugin.prepare(asked)
    assert asked.body.prompt.data == pack_token_ids([7, 8])
    assert server.asked == [("POST /render-service/v1/chat/completions/render HTTP/1.1", {**CHAT, "model": "base"})]
    await plugin.close()


async def test_two_pictures_are_two_prefixes(vllm: tuple[Vllm, str]) -> None:
    server, url = vllm
    plugin = producer(url)

    async def tokens(*hashes: str | None, length: int = 3, offset: int = 2) -> bytes:
        features = {"mm_hashes": {"image": hashes}, "mm_placeholders": {"image": [{"offset": offset, "length": length}] * len(hashes)}}
        server.answer = json.dumps({"token_ids": [1, 2, 9, 9, 9, 3], "features": features}).encode()
        asked = asking("/v1/chat/completions", CHAT)
        await plugin.prepare(asked)
        assert asked.prompt_tokens == 6
        return asked.body.prompt.data

    plain, first, second = pack_token_ids([1, 2, 9, 9, 9, 3]), await tokens("cat"), await tokens("dog")
    assert first != second and first == await tokens("cat")
    assert first[:8] == plain[:8] and first[16:] == plain[16:] and first[8:16] != plain[8:16]
    one = await tokens("cat", length=1)
    assert one[:8] == plain[:8] and one[12:] == plain[12:] and one[8:12] == first[8:12]
    assert await tokens(None) == await tokens() == await tokens("cat", offset=6) == plain
    await plugin.close()


async def test_media_are_known_by_the_renderers_hashes_where_it_gives_any(vllm: tuple[Vllm, str]) -> None:
    server, url = vllm
    plugin = producer(url)

    async def media(answer: dict[str, Any]) -> list[Medium]:
        server.answer = json.dumps({"token_ids": [1, 2], **answer}).encode()
        asked = asking("/v1/chat/completions", CHAT)
        asked.body = msgspec.structs.replace(asked.body, prompt=Prompt(b"", 0, [Medium("image", 7)]))
        await plugin.prepare(asked)
        return list(asked.body.prompt.media)

    hashed = {"features": {"mm_hashes": {"image": ["cat", "dog"], "video": [None]}, "mm_placeholders": {}}}
    (cat, dog) = await media(hashed)
    assert (cat.modality, dog.modality) == ("image", "image")
    assert len({7, cat.digest, dog.digest}) == 3
    assert await media(hashed) == [cat, dog]
    assert await media({"features": None}) == await media({}) == [Medium("image", 7)]
    await plugin.close()


async def test_the_clients_credentials_are_shown_to_the_vllm(vllm: tuple[Vllm, str]) -> None:
    server, url = vllm
    server.answer = b'{"token_ids":[7]}'
    plugin, asked = producer(url), asking("/v1/chat/completions", CHAT)
    asked.headers = {"authorization": "Bearer secret"}
    await plugin.prepare(asked)
    await plugin.prepare(asking("/v1/chat/completions", CHAT))
    asked.headers = {"authorization": "x\r\nY: z"}
    with pytest.raises(ValueError, match="printable ASCII"):
        await plugin.prepare(asked)
    assert server.credentials == ["Bearer secret", ""]
    await plugin.close()


@pytest.mark.parametrize("answer", [b"", b"{}", b"[]", b'{"token_ids":[-1]}', b'{"token_ids":["a"]}', b'{"detail":"no"}'])
async def test_an_answer_of_another_shape_leaves_the_estimate(vllm: tuple[Vllm, str], answer: bytes) -> None:
    server, url = vllm
    server.answer = answer
    plugin, asked = producer(url), asking("/v1/chat/completions", CHAT)
    with pytest.raises(msgspec.DecodeError):
        await plugin.prepare(asked)
    assert asked.body.prompt.data == b"an estimate"
    await plugin.close()


async def test_an_error_or_silence_leaves_the_estimate(vllm: tuple[Vllm, str]) -> None:
    server, url = vllm
    plugin, asked = producer(url, timeout="50ms", mmTimeout="60ms"), asking("/v1/chat/completions", CHAT)
    server.status = b"404 Not Found"
    with pytest.raises(ReadError, match="status 404"):
        await plugin.prepare(asked)
    server.answer = None
    with pytest.raises(ReadError, match=r"no answer within 0.05 s"):
        await plugin.prepare(asked)
    with pytest.raises(ReadError, match=r"no answer within 0.06 s"):
        await plugin.prepare(asking("/v1/chat/completions", CHAT, extra=230))
    assert asked.body.prompt.data == b"an estimate"
    assert plugin.timeout_s == 0.06
    await plugin.close()


async def test_one_that_is_cancelled_gives_up_its_connection(vllm: tuple[Vllm, str]) -> None:
    server, url = vllm
    server.answer = None
    plugin, asked = producer(url), asking("/v1/completions", {"model": "m", "prompt": "x"})
    task = asyncio.create_task(plugin.prepare(asked))
    async with asyncio.timeout(20):
        while not server.asked:  # noqa: ASYNC110
            await asyncio.sleep(0.002)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    server.answer = b'[{"token_ids":[5]}]'
    await plugin.prepare(asked)
    assert asked.prompt_tokens == 1 and server.connections == 2
    await plugin.close()


@pytest.mark.parametrize(
    ("path", "payload", "wanted"),
    [
        ("/v1/completions", b"{}", True),
        ("/openai/v1/chat/completions", b"{}", True),
        ("/v1/completions", b"", False),
        ("/v1/embeddings", b"{}", False),
        ("/v1/chat/completions/render", b"{}", False),
        ("/v1/messages", b"{}", False),
    ],
)
def test_only_what_can_be_rendered_waits(path: str, payload: bytes, wanted: bool) -> None:
    asked = request(b"x")
    asked.path, asked.payload = path, payload
    assert producer("http://localhost:1").wants(asked) == wanted


@pytest.mark.parametrize("parameters", [{}, {"estimate": {}}])
def test_the_estimate_asks_nobody(parameters: dict[str, Any]) -> None:
    assert not build(TokenProducer, parameters).asks


@pytest.mark.parametrize(
    ("parameters", "path", "message"),
    [
        ({"vllm": {}}, "modelName", "required for the vllm backend"),
        ({"modelName": "m", "estimate": {}}, "estimate", "not both"),
        ({"estimate": {"image": {"mode": "static"}}}, "estimate.image", "cannot be set in this version"),
        ({"modelName": "m", "vllm": {"url": "localhost:8000"}}, "vllm.url", "expected http://HOST"),
        ({"modelName": "m", "vllm": {"url": "http://u@h"}}, "vllm.url", "no blanks, credentials"),
        ({"modelName": "m", "vllm": {"url": "http://h:x"}}, "vllm.url", "is not a URL"),
        ({"modelName": "m", "vllm": {"url": "http://h/a b"}}, "vllm.url", "no blanks"),
        ({"modelName": "m", "vllm": {"http": "ftp://h"}}, "vllm.http", "expected http://HOST"),
        ({"modelName": "m", "vllm": {"http": "http://h", "url": "http://h"}}, "vllm.http", "not both"),
        ({"modelName": "m", "vllm": {"timeout": "5"}}, "vllm.timeout", "not a duration"),
        ({"modelName": "m", "vllm": {"mmTimeout": "0"}}, "vllm.mmTimeout", "more than 0"),
    ],
)
def test_what_cannot_be_used_is_refused_with_its_place(parameters: dict[str, Any], path: str, message: str) -> None:
    with pytest.raises(ParameterError, match=message) as error:
        build(TokenProducer, parameters)
    assert error.value.path == path


def test_a_model_name_alone_is_the_vllm_nearby() -> None:
    assert build(TokenProducer, {"modelName": "m"}).asks
