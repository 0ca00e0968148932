"""Media by endpoint: learnt, matched, bounded, counted."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any

import pytest

from picker.endpoint import EndpointMetrics
from picker.metrics import Metrics
from picker.prompt import Medium, Prompt
from picker.request import InferenceRequest, ParsedBody
from picker.scheduling import media_cache
from picker.scheduling.media_cache import MediaCacheProducer, MediaCacheScorer
from picker.snapshot import Candidates, Snapshot
from tests.picker.scheduling.pool import FakeHandle, build, idle, only, pool
from tests.picker.test_director import destination, handle
from tests.picker.world import P, World, config


def media(digests: Iterable[int], modality: str = "image") -> list[Medium]:
    return [Medium(modality, digest) for digest in digests]


def asked(digests: Iterable[int], modality: str = "image") -> InferenceRequest:
    body = ParsedBody(model="m", prompt=Prompt(b"", 0, media(digests, modality)))
    return InferenceRequest("id", "/v1/chat/completions", {}, body, "m", "m")


def pair(**parameters: Any) -> tuple[MediaCacheProducer, MediaCacheScorer]:
    producer = build(MediaCacheProducer, parameters)
    return producer, build(MediaCacheScorer, {}, FakeHandle(mm_embeddings_cache_producer=producer))


def send(producer: MediaCacheProducer, snapshot: Snapshot, position: int, *digests: int) -> None:
    request = asked(digests)
    producer.produce(request, snapshot.candidates())
    producer.pre_request(request, snapshot, position)


def scores(producer: MediaCacheProducer, scorer: MediaCacheScorer, candidates: Candidates, *digests: int) -> list[float]:
    request = asked(digests)
    producer.produce(request, candidates)
    return list(scorer.score(request, candidates))


@pytest.mark.parametrize(
    ("sent", "digests", "expected"),
    [
        # endpoint -> what it has had; asked; matched / all different ones
        ([[1]], [1], [1.0]),
        ([[]], [1], [0.0]),
        ([[1], [1]], [1], [1.0, 1.0]),
        ([[1, 2, 3, 4], [1], [], [4, 5]], [1, 2, 3, 4], [1.0, 0.25, 0.0, 0.25]),
        ([[1], [2]], [1, 1, 1, 2], [0.5, 0.5]),
        ([[1], [2]], [], [0.0, 0.0]),
        ([[1], [2]], [9, 8], [0.0, 0.0]),
    ],
)
def test_the_score_is_the_matched_part(sent: list[list[int]], digests: list[int], expected: list[float]) -> None:
    producer, scorer = pair()
    snapshot = idle(len(sent))
    for position, known in enumerate(sent):
        send(producer, snapshot, position, *known)
    assert scores(producer, scorer, snapshot.candidates(), *digests) == expected


def test_of_some_candidates_and_of_endpoints_never_scraped() -> None:
    producer, scorer = pair()
    snapshot = pool([EndpointMetrics()] * 3, bits=[5, 0, 9])
    send(producer, snapshot, 2, 1)
    assert scores(producer, scorer, only(snapshot, 0, 2), 1) == [0.0, 1.0]


def test_an_endpoint_keeps_one_medium_per_2_mib() -> None:
    producer, scorer = pair(cacheSizeInMBPerServer=4)
    snapshot = idle(2)
    send(producer, snapshot, 0, 1)
    send(producer, snapshot, 0, 2)
    send(producer, snapshot, 0, 1)
    send(producer, snapshot, 0, 3)  # 2 was used longest ago
    assert [scores(producer, scorer, snapshot.candidates(), n)[0] for n in (1, 2, 3)] == [1.0, 0.0, 1.0]


@pytest.mark.parametrize(("mib", "entries"), [(4096, 2048), (0, 2048), (1, 1), (2, 1), (7, 3)])
def test_capacity(mib: int, entries: int) -> None:
    assert build(MediaCacheProducer, {"cacheSizeInMBPerServer": mib}).capacity == entries


def test_all_endpoints_together_are_bounded_in_bytes() -> None:
    producer, _ = pair()
    producer.index.limit_bytes = 100_000
    snapshot = idle(10)
    for n in range(5_000):
        send(producer, snapshot, n % 10, n)
    assert 100 < len(producer.index) < 500
    assert producer.index.size_bytes <= 100_000


def test_a_request_of_countless_media_is_looked_at_in_part() -> None:
    producer, scorer = pair()
    snapshot = idle(2)
    send(producer, snapshot, 1, *range(10_000))
    assert len(producer.index) == media_cache.MOST_MEDIA
    assert scores(producer, scorer, snapshot.candidates(), *range(10_000)) == [0.0, 1.0]


def test_an_endpoint_that_is_gone_has_nothing_when_it_comes_back() -> None:
    producer, scorer = pair()
    snapshot = idle(2)
    send(producer, snapshot, 0, 1)
    producer.endpoint_removed(snapshot.endpoints[0], snapshot.bits[0])
    assert scores(producer, scorer, snapshot.candidates(), 1) == [0.0, 0.0]
    send(producer, snapshot, 1, 1)
    assert scores(producer, scorer, snapshot.candidates(), 1) == [0.0, 1.0]


def test_a_match_is_of_one_snapshot() -> None:
    producer, scorer = pair()
    snapshot = idle(2)
    send(producer, snapshot, 0, 1)
    request = asked([1])
    producer.produce(request, snapshot.candidates())
    assert list(scorer.score(request, idle(3).candidates())) == [0.0] * 3


def test_metrics() -> None:
    producer, _ = pair()
    metrics = Metrics()
    producer.connect(metrics, as_reference=False)
    snapshot = idle(4)
    send(producer, snapshot, 0, 1, 2)
    send(producer, snapshot, 1, 1)
    send(producer, snapshot, 3, 1)
    producer.produce(asked([1, 7], "video"), only(snapshot, 0, 1, 2))
    labels = (producer.type, producer.name)
    assert {k: c.value for k, c in metrics.encoder_queries.cells.items()} == {(*labels, "image"): 4.0, (*labels, "video"): 2.0}
    # The second request found one on the first endpoint, the third on the first two; the last one does not see the fourth endpoint.
    assert {k[2:]: c.value for k, c in metrics.encoder_hits.cells.items()} == {
        ("default/e1", "image"): 2.0,
        ("default/e2", "image"): 1.0,
        ("default/e1", "video"): 1.0,
        ("default/e2", "video"): 1.0,
    }
    ratio = metrics.encoder_hit_ratio.cell(*labels)
    assert (sum(ratio.counts), ratio.total) == (3 * 4 + 3, 1.0 + 2.0 + 2 * 0.5)
    metrics.forget_endpoint("e1", "default")
    assert [k[2] for k in metrics.encoder_hits.cells] == ["default/e2"] * 2


def test_a_picture_goes_where_it_went_before() -> None:
    world = World(P(0), P(1), P(2), config=config("openai-parser", scorers=("mm-embeddings-cache-scorer",)))

    def ask(url: str, text: str) -> str:
        content = [{"type": "text", "text": text}, {"type": "image_url", "image_url": {"url": url}}]
        body = json.dumps({"model": "m", "messages": [{"role": "user", "content": content}]}).encode()
        exchange = handle(world, {":path": "/v1/chat/completions"}, body)
        assert exchange.request is not None and not exchange.request.body.prompt.media, "forgotten once it has been used"
        return destination(exchange)

    homes = {url: ask(url, "first") for url in (f"https://host/{n}.png" for n in range(5))}
    for n in range(10):
        assert {url: ask(url, f"question {n}") for url in homes} == homes
    page = world.metrics.encoder_queries.cells
    assert [c.value for c in page.values()] == [55.0]
    assert sum(c.value for c in world.metrics.encoder_hits.cells.values()) == 50.0
