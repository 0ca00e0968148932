"""Ranks behind one port: what the proxy is told, and where the request counts."""

from __future__ import annotations

import pytest

from picker.extproc.events import HeadersReply, RequestBody, RequestHeaders, ResponseHeaders
from picker.extproc.headers import LB_NAMESPACE
from picker.keys import DESTINATION
from tests.picker.extproc.transcript import ASKING, completion
from tests.picker.world import P, World, at, config

RANKS = config("openai-parser", "data-parallel-profile-handler", scorers=("queue-scorer",))


@pytest.mark.parametrize(
    ("served", "counts_on"),
    [(None, at(0, 8001)), (at(0), at(0, 8001)), (at(0, 8001), at(0, 8001)), (at(1, 8002), at(1, 8002))],
)
def test_the_rank_is_in_the_header_and_keeps_the_load(served: str | None, counts_on: str) -> None:
    # The primary port is an endpoint, too: rank 0, which must not be taken for the one that answers.
    world = World(P(0, 5), P(0, 0, port=8001), P(1, 5, port=8002), config=RANKS)
    conversation = world.conversation()
    conversation.receive(RequestHeaders([*ASKING, ("x-data-parallel-host-port", b"10.9.9.9:1")]))
    told = next(reply for reply in conversation.receive(RequestBody(completion(), True)) if isinstance(reply, HeadersReply))
    assert told.change is not None
    headers = [(name, value) for name, value in told.change.set_headers if name in (DESTINATION, "x-data-parallel-host-port")]
    assert headers == [(DESTINATION, at(0).encode()), ("x-data-parallel-host-port", at(0, 8001).encode())]
    assert told.metadata == {LB_NAMESPACE: {DESTINATION: at(0)}}
    conversation.receive(ResponseHeaders([(":status", b"200")], served=served))
    assert {a: world.load(a).requests for a in (at(0), at(0, 8001), at(1, 8002))} == {
        a: int(a == counts_on) for a in (at(0), at(0, 8001), at(1, 8002))
    }
    conversation.end()
    world.assert_idle()
