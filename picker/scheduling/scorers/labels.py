"""Scorers that compare a request with the labels of endpoints."""

from __future__ import annotations

from typing import Annotated

import msgspec

from picker.plugin import Handle, Parameters
from picker.request import InferenceRequest
from picker.scheduling.endpoint_index import EndpointIndex
from picker.snapshot import Candidates


class HeaderLabelParameters(Parameters, frozen=True):
    """Which request header is compared with which label."""

    header_name: Annotated[str, msgspec.Meta(min_length=1)]
    label_key: Annotated[str, msgspec.Meta(min_length=1)]


class HeaderLabelAffinityScorer:
    """Prefers endpoints whose label has the value of a request header."""

    type = "header-label-affinity-scorer"
    Parameters = HeaderLabelParameters
    bounded = True
    experimental = True

    def __init__(self, name: str, parameters: HeaderLabelParameters, handle: Handle) -> None:
        self.name = name
        self._header = parameters.header_name.lower()
        label = parameters.label_key
        self._by_label = EndpointIndex(lambda endpoint: endpoint.labels.get(label))

    def score(self, request: InferenceRequest, candidates: Candidates) -> list[float]:
        """1 where they are equal, else 0; 0 for all when the request does not have the header or has an empty one."""
        wanted = request.headers.get(self._header)
        if not wanted:
            return [0.0] * len(candidates)
        return self._by_label.marks(candidates, wanted)
