"""mm-embeddings-cache-producer and -scorer: which server has probably encoded the pictures of a prompt before (contract sections 4.1, 4.6).

A model server keeps the embeddings of images, recordings and videos in an encoder cache. Learnt from our own routing, as the prefix index
is, and kept in one of the same kind: a medium is a prompt of one block.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from itertools import islice
from typing import Annotated, ClassVar

import msgspec

from picker.endpoint import Endpoint
from picker.keys import ENCODER_CACHE_MATCH, MM_EMBEDDINGS_CACHE_PRODUCER, TOKENIZED_PROMPT
from picker.metrics import Metrics
from picker.plugin import Handle, Parameters
from picker.prompt import Medium
from picker.request import InferenceRequest
from picker.scheduling.prefix_index import PrefixIndex
from picker.snapshot import Candidates, Snapshot

ENTRY_MIB = 2
DEFAULT_CACHE_MIB = 4096
INDEX_BYTES = 64 * 1024 * 1024
"""Some 200,000 entries of all endpoints together."""
MOST_MEDIA = 256
"""Of one request; an entry takes 10 µs to learn, and a client can write a hundred thousand of them into 10 MB."""


class EncoderCacheMatch(msgspec.Struct, frozen=True):
    """`matched`: how many of the `media`, all different, each endpoint has had; aligned with `snapshot.endpoints`. `holders` of each
    medium are a bitmask of the index."""

    matched: Sequence[int]
    media: Sequence[Medium]
    holders: Sequence[int]
    snapshot: Snapshot


class MediaCacheParameters(Parameters, frozen=True):
    """`cacheSizeInMBPerServer`: an endpoint is taken to keep one medium per 2 MiB of this, those it used last; 0 is the default."""

    cache_size_in_mb_per_server: Annotated[int, msgspec.Meta(ge=0)] = msgspec.field(
        default=DEFAULT_CACHE_MIB, name="cacheSizeInMBPerServer"
    )


class MediaCacheProducer:
    """Learns which images, recordings and videos went where, and says how many of a prompt's each endpoint has had."""

    type = MM_EMBEDDINGS_CACHE_PRODUCER
    Parameters = MediaCacheParameters
    produces: ClassVar[frozenset[str]] = frozenset({ENCODER_CACHE_MATCH})
    consumes: ClassVar[frozenset[str]] = frozenset({TOKENIZED_PROMPT})

    def __init__(self, name: str, parameters: MediaCacheParameters, handle: Handle) -> None:
        self.name = name
        self.index = PrefixIndex(INDEX_BYTES)
        self.capacity = max(1, (parameters.cache_size_in_mb_per_server or DEFAULT_CACHE_MIB) // ENTRY_MIB)
        """Media per endpoint."""
        self._bits: tuple[int, ...] | None = None
        self._positions: dict[int, int] = {}
        self._zeros: tuple[int, ...] = ()
        self._metrics: Metrics | None = None

    def connect(self, metrics: Metrics, *, as_reference: bool) -> None:
        """Where to count what was looked up and found."""
        self._metrics = metrics

    def produce(self, request: InferenceRequest, candidates: Candidates) -> None:
        """Nothing for a request without media."""
        media = request.body.prompt.media
        if media:
            match = self._match(list(islice(dict.fromkeys(media), MOST_MEDIA)), candidates.snapshot)
            request.working[self.name] = match
            if self._metrics is not None:
                self._count(self._metrics, match, candidates)

    def match(self, request: InferenceRequest, snapshot: Snapshot) -> EncoderCacheMatch | None:
        """None for a request without media."""
        found = request.working.get(self.name)
        return found if isinstance(found, EncoderCacheMatch) and found.snapshot is snapshot else None

    def pre_request(self, request: InferenceRequest, snapshot: Snapshot, position: int) -> None:
        """The picked endpoint is about to encode them."""
        match = self.match(request, snapshot)
        if match is not None:
            bit = snapshot.bits[position]
            for medium in match.media:
                self.index.add(bit, (medium.digest,), self.capacity)

    def endpoint_removed(self, endpoint: Endpoint, bit: int) -> None:
        """Its cache is gone with it."""
        self.index.remove_endpoint(bit)
        self._bits = None  # the bit may be given to another endpoint, in another place of the index

    def _match(self, media: Sequence[Medium], snapshot: Snapshot) -> EncoderCacheMatch:
        if snapshot.bits is not self._bits:
            self._positions = {self.index.slot(bit): position for position, bit in enumerate(snapshot.bits)}
            self._zeros = (0,) * len(snapshot)
            self._bits = snapshot.bits
        holders = [runs[0][0] if (runs := self.index.runs((medium.digest,))) else 0 for medium in media]
        if not any(holders):
            return EncoderCacheMatch(self._zeros, media, holders, snapshot)
        matched = list(self._zeros)
        for mask, count in Counter(holders).items():  # pictures that always come together have the same holders
            for position in self._positions_of(mask):
                matched[position] += count
        return EncoderCacheMatch(matched, media, holders, snapshot)

    def _positions_of(self, mask: int) -> Iterator[int]:
        """In the snapshot looked at last."""
        while mask:
            low = mask & -mask
            position = self._positions.get(low.bit_length() - 1)
            if position is not None:
                yield position
            mask ^= low

    def _count(self, metrics: Metrics, match: EncoderCacheMatch, candidates: Candidates) -> None:
        """As in the reference: each lookup, each candidate that has had the medium, and for each candidate the part that it has had."""
        for modality, lookups in Counter([m.modality for m in match.media]).items():
            metrics.encoder_queries.cell(self.type, self.name, modality).value += lookups
        matched = candidates.column(match.matched)
        ratio = metrics.encoder_hit_ratio.cell(self.type, self.name)
        for hits, endpoints in Counter(matched).items():
            ratio.observe_times(hits / len(match.media), endpoints)
        if not any(matched):
            return
        pods = {p: str(e) for p, e, hits in zip(candidates.positions, candidates.endpoints, matched, strict=True) if hits}
        found = Counter([(mask, medium.modality) for mask, medium in zip(match.holders, match.media, strict=True)])
        cell = metrics.encoder_hits.cell
        for (mask, modality), count in found.items():
            for position in self._positions_of(mask):
                if position in pods:
                    cell(self.type, self.name, pods[position], modality).value += count


class MediaCacheScorerParameters(Parameters, frozen=True):
    """`producerName` names the producer to ask."""

    producer_name: str = MM_EMBEDDINGS_CACHE_PRODUCER


class MediaCacheScorer:
    """Prefers servers that have probably encoded the prompt's images, recordings and videos before."""

    type = "mm-embeddings-cache-scorer"
    Parameters = MediaCacheScorerParameters
    bounded = True
    consumes: ClassVar[frozenset[str]] = frozenset({ENCODER_CACHE_MATCH})

    def __init__(self, name: str, parameters: MediaCacheScorerParameters, handle: Handle) -> None:
        self.name = name
        self._producer: MediaCacheProducer = handle.plugin(parameters.producer_name, MM_EMBEDDINGS_CACHE_PRODUCER)

    def score(self, request: InferenceRequest, candidates: Candidates) -> Sequence[float]:
        """Matched bytes / all bytes of the media, where each one counts for 2 MiB; 0 without media."""
        match = self._producer.match(request, candidates.snapshot)
        if match is None:
            return [0.0] * len(candidates)
        count = len(match.media)
        parts = [n / count for n in range(count + 1)]
        return [parts[hits] for hits in candidates.column(match.matched)]
