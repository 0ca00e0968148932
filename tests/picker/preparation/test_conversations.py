"""A request that waits for its tokens, seen from its proxy: answered when they are there, settled when the client leaves before."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path

import pytest

from picker.extproc.conversation import State
from picker.extproc.events import HeadersReply, Reply, RequestBody, RequestHeaders, StreamedBodyReply
from tests.picker.extproc.transcript import ASKING, BEST, PODS, completion
from tests.picker.preparation.test_token_producer import Vllm, vllm
from tests.picker.world import World, config

__all__ = ["vllm"]  # a fixture

BODY = completion(prompt="word " * 100)


async def until(wanted: Callable[[], object]) -> None:
    async with asyncio.timeout(20):
        while not wanted():  # noqa: ASYNC110
            await asyncio.sleep(0.002)


def world(url: str) -> World:
    return World(*PODS, config=config(parameters=f"- type: token-producer\n  parameters: {{modelName: base, vllm: {{url: '{url}'}}}}\n"))


async def test_a_request_waits_for_its_tokens_and_is_counted_by_them(vllm: tuple[Vllm, str]) -> None:
    server, url = vllm
    server.answer = b'[{"token_ids":[1,2,3]}]'
    made, said = world(url), list[Reply]()
    conversation = made.conversation(said.extend)
    assert conversation.receive(RequestHeaders(ASKING)) == ()
    assert conversation.receive(RequestBody(BODY, True)) == ()
    assert conversation.state is State.WAITING and conversation.may_speak
    await until(lambda: said)
    headers, body = said
    assert isinstance(headers, HeadersReply) and isinstance(body, StreamedBodyReply) and body.body == BODY
    assert (made.load(BEST).requests, made.load(BEST).tokens) == (1, 3)
    conversation.end()
    made.assert_idle()
    assert made.pipeline.preparation is not None
    await made.pipeline.preparation.close()


async def test_a_tokenizer_that_is_down_costs_nothing_but_the_estimate(vllm: tuple[Vllm, str]) -> None:
    server, url = vllm
    server.status = b"500 Oh"
    made, said = world(url), list[Reply]()
    conversation = made.conversation(said.extend)
    conversation.receive(RequestHeaders(ASKING))
    conversation.receive(RequestBody(BODY, True))
    await until(lambda: said)
    assert (made.load(BEST).requests, made.load(BEST).tokens) == (1, 125)
    assert made.page().value("fairlead_preparation_failures_total", reason="error") == 1
    conversation.end()
    made.assert_idle()
    assert made.pipeline.preparation is not None
    await made.pipeline.preparation.close()


async def test_a_client_that_leaves_meanwhile_is_settled(vllm: tuple[Vllm, str]) -> None:
    server, url = vllm
    server.answer = None
    made, said = world(url), list[Reply]()
    conversation = made.conversation(said.extend)
    conversation.receive(RequestHeaders(ASKING))
    conversation.receive(RequestBody(BODY, True))
    await until(lambda: server.asked)
    assert made.page().value("fairlead_requests_in_preparation") == 1
    conversation.end()
    await until(lambda: made.page().value("fairlead_requests_in_preparation") == 0)
    made.assert_idle()
    assert said == [] and made.outcomes() == {"ServiceUnavailable": 1}
    assert made.pipeline.preparation is not None
    await made.pipeline.preparation.close()


FOREIGN = """
class Tenants:
    timeout_s = 0.05
    produces = ("tenant",)

    async def prepare(self, request):
        import asyncio
        what = request.headers["x-what"]
        if what == "raise":
            raise KeyError("of the plugin")
        if what == "wait":
            await asyncio.get_running_loop().create_future()
        request.working["tenant"] = what


class Writes:
    consumes = ("tenant",)
    produces = ("written",)

    def produce(self, request, candidates):
        request.set_header("x-tenant", request.working.get("tenant", "nobody"))
"""


@pytest.mark.parametrize(("what", "tenant"), [("gold", b"gold"), ("raise", b"nobody"), ("wait", b"nobody")])
async def test_somebody_elses_producer_is_asked_and_its_failures_are_counted(tmp_path: Path, what: str, tenant: bytes) -> None:
    module = f"preparing_{what}"
    (tmp_path / f"{module}.py").write_text(FOREIGN)
    text = config(parameters=f"- type: {module}.Writes\n- type: {module}.Tenants\n")
    made, said = World(*PODS, config=text, plugin_paths=[tmp_path]), list[Reply]()
    conversation = made.conversation(said.extend)
    conversation.receive(RequestHeaders([*ASKING, ("x-what", what.encode())]))
    conversation.receive(RequestBody(BODY, True))
    await until(lambda: said)
    headers = said[0]
    assert isinstance(headers, HeadersReply) and tenant in str(headers).encode()
    page = made.page()
    raised = [s.value for s in page.find("fairlead_plugin_errors_total") if s.labels["kind"] == "raised" and s.value]
    late = [s.value for s in page.find("fairlead_preparation_failures_total") if s.labels["reason"] == "timeout"]
    assert (raised, late) == {"gold": ([], []), "raise": ([1], []), "wait": ([], [1])}[what]
    conversation.end()
    made.assert_idle()
    assert made.pipeline.preparation is not None
    await made.pipeline.preparation.close()
