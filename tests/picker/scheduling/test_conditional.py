"""Requests that want a cached prefix or nothing."""

from __future__ import annotations

import pytest

from picker.errors import PreconditionFailed
from picker.exchange import Cause
from picker.scheduling.conditional import ConditionalDecode
from picker.scheduling.producers import ApproxPrefixCacheProducer
from tests.picker.scheduling.pool import build, idle, request
from tests.picker.world import P, World, at, config

POOL = idle(2)
PROMPT = b"x" * 1024  # four blocks


def refuses(prefer: str | None, prompt: bytes, position: int) -> bool:
    """With PROMPT on the second endpoint."""
    producer = build(ApproxPrefixCacheProducer)
    producer.pre_request(request(PROMPT), POOL, 1)
    asked = request(prompt)
    asked.headers = {} if prefer is None else {"prefer": prefer}
    try:
        ConditionalDecode(producer).check(asked, POOL, position)
    except PreconditionFailed as refusal:
        assert (refusal.message, refusal.drop_reason) == ("no decode worker has the requested KV cache", None)
        return True
    return False


@pytest.mark.parametrize(
    ("prefer", "prompt", "position", "refused"),
    [
        ("if-available", PROMPT, 1, False),
        ("if-available", PROMPT, 0, True),
        ("if-available", PROMPT[:256] + b"y" * 768, 1, False),  # one block will do
        ("if-available", b"y" * 1024, 1, True),
        ("if-available", b"", 1, True),
        (None, PROMPT, 0, False),
        ("", PROMPT, 0, False),
        ("respond-async", PROMPT, 0, False),
        ("if-available-or-so", PROMPT, 0, False),
        ("respond-async, If-Available", PROMPT, 0, True),
        ("if-available; strictly", PROMPT, 0, True),
    ],
)
def test_who_is_refused(prefer: str | None, prompt: bytes, position: int, refused: bool) -> None:
    assert refuses(prefer, prompt, position) == refused


def asks(world: World, **headers: str) -> str:
    """Where a request goes, which is then over."""
    body = b'{"model":"m","prompt":"' + PROMPT + b'"}'
    exchange = world.director.handle({":path": "/v1/completions", **headers}, body, None, request_id="r", received_s=world.now)
    exchange.close(Cause.COMPLETED)  # type: ignore[union-attr]
    assert exchange.decision is not None  # type: ignore[union-attr]
    return exchange.decision.result.endpoints[0].host_port  # type: ignore[union-attr]


def test_the_refusal_is_counted_and_teaches_the_index_nothing() -> None:
    world = World(P(0), P(1), config=config("openai-parser", scorers=("prefix-cache-scorer",)))
    for _ in range(2):
        with pytest.raises(PreconditionFailed):
            asks(world, prefer="if-available")
    first = asks(world)
    assert first in (at(0), at(1))
    assert asks(world, prefer="if-available") == first
    assert world.outcomes() == {"ok": 2, "PreconditionFailed": 2}
    world.assert_idle()


def test_nobody_is_refused_where_nothing_is_known_of_prefixes() -> None:
    world = World(P(0), config=config("openai-parser", scorers=("queue-scorer",)))
    assert world.director.stages.conditional is None
    assert asks(world, prefer="if-available") == at(0)
