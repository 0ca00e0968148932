"""Readiness, and that those who watch it miss nothing. Check and List are tested on the process (tests/conformance)."""

from __future__ import annotations

import asyncio

from grpc_health.v1 import health_pb2

from picker.extproc.health import HealthService, Readiness

SERVING, NOT_SERVING = health_pb2.HealthCheckResponse.SERVING, health_pb2.HealthCheckResponse.NOT_SERVING


def test_every_reason_must_be_gone() -> None:
    readiness = Readiness()
    assert readiness.ready
    readiness.block("a", "no endpoints")
    readiness.block("b", "shutting down")
    readiness.clear("a")
    assert not readiness.ready and readiness.reasons == {"b": "shutting down"}
    readiness.clear("b")
    readiness.clear("never there")
    assert readiness.ready


async def test_a_watcher_that_is_slow_to_take_an_answer_still_hears_of_the_change() -> None:
    readiness = Readiness()
    watch = HealthService(readiness)._watch(None, None)  # type: ignore[arg-type]
    async with asyncio.timeout(20):
        assert (await anext(watch)).status == SERVING
        readiness.block("draining", "shutting down")  # while the answer is still on its way
        assert (await anext(watch)).status == NOT_SERVING
        waiting = asyncio.ensure_future(anext(watch))
        await asyncio.sleep(0)
        readiness.block("more", "of the same")
        readiness.clear("more")
        assert not waiting.done()
        readiness.clear("draining")
        assert (await waiting).status == SERVING
