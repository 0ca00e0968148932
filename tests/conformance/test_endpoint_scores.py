"""The reference's suite of endpoint scores: off by default, and with `--emit-endpoint-scores` one for every endpoint that was scored."""

from __future__ import annotations

import pytest

from tests.conformance.setting import Setting, setting
from tests.support.ext_proc import POST, dynamic_metadata, request_body, request_headers
from tests.support.model_server import Load

DESTINATION = "x-gateway-destination-endpoint"
SCORES = "x-gateway-destination-endpoint-scores"
BODY = b'{"max_tokens":100,"model":"my-model","prompt":"test","temperature":0}'


async def _told(s: Setting) -> dict[str, object]:
    async with s.client.stream() as stream:
        await stream.send(request_headers(POST))
        await stream.send(request_body(BODY, end=True))
        headers, _ = await stream.expect(2)
        return dict(dynamic_metadata(headers)["envoy.lb"])


async def test_scores_are_not_told_by_default() -> None:
    async with setting(Load(0, 0.1), Load(5, 0.5)) as s:
        assert await _told(s) == {DESTINATION: s.at(0)}


async def test_every_endpoint_that_was_scored_is_told_with_its_score() -> None:
    async with setting(Load(0, 0.1), Load(5, 0.5), flags=["--emit-endpoint-scores"]) as s:
        told = await _told(s)
        assert told[DESTINATION] == s.at(0)
        # queue 1 / 0, KV cache 0.9 / 0.5, no prefix, LoRA neither reported nor loaded: 0
        assert told[SCORES] == {s.at(0): pytest.approx(1.9), s.at(1): pytest.approx(0.5)}
