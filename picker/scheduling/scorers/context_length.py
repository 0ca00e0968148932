"""Servers that are set up for prompts of a certain length."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import NamedTuple

from picker.endpoint import Endpoint
from picker.plugin import Handle, Parameters
from picker.request import InferenceRequest
from picker.snapshot import Candidates

log = logging.getLogger(__name__)

_MOST_TEXTS = 4096


class _Range(NamedTuple):
    low: int
    high: int


class ContextLengthParameters(Parameters, frozen=True):
    """`label` holds a range "min-max" in tokens; `enableFiltering` takes out servers whose range does not hold the prompt."""

    label: str = "llm-d.ai/context-length-range"
    enable_filtering: bool = False


class ContextLengthAware:
    """A filter, when enabled, and a scorer. A server without the label, or with one that is no range, takes any length."""

    type = "context-length-aware"
    Parameters = ContextLengthParameters
    bounded = True

    def __init__(self, name: str, parameters: ContextLengthParameters, handle: Handle) -> None:
        self.name = name
        self._label = parameters.label
        self._filtering = parameters.enable_filtering
        self._read: dict[str, _Range | None] = {}  # by label text, which discovery chooses
        self._endpoints: tuple[Endpoint, ...] | None = None
        self._ranges: list[_Range | None] = []
        self._which: list[int] = []

    def filter(self, request: InferenceRequest, candidates: Candidates) -> Candidates:
        """Those whose range holds the prompt's estimated tokens, and those without a range."""
        if not self._filtering:
            return candidates
        tokens = request.prompt_tokens
        which = self._of(candidates)
        holds = [r is None or r.low <= tokens <= r.high for r in self._ranges]
        return candidates if all(holds) else candidates.at([i for i, n in enumerate(which) if holds[n]])

    def score(self, request: InferenceRequest, candidates: Candidates) -> list[float]:
        """Inside: 0.3 + 0.7 x (0.7 / (1 + width / 10000) + 0.3 x (max - tokens) / width), 1 for width 0; outside: 0.3 / (1 +
        distance / 1000); 0.5 without a range."""
        tokens = request.prompt_tokens
        which = self._of(candidates)
        scores = [_score(r, tokens) for r in self._ranges]
        return [scores[n] for n in which]

    def _of(self, candidates: Candidates) -> Sequence[int]:
        """The range of each candidate by its number in `_ranges`. Labels do not change while an `Endpoint` lives, and a pool has few
        different ones."""
        endpoints = candidates.snapshot.endpoints
        if endpoints is not self._endpoints:
            numbers: dict[_Range | None, int] = {}
            label = self._label
            found = [None if (text := e.labels.get(label)) is None else self._range(text, e) for e in endpoints]
            self._which = [numbers.setdefault(r, len(numbers)) for r in found]
            self._ranges = list(numbers)
            self._endpoints = endpoints
        return candidates.column(self._which)

    def _range(self, text: str, endpoint: Endpoint) -> _Range | None:
        try:
            return self._read[text]
        except KeyError:
            pass
        if len(self._read) >= _MOST_TEXTS:
            self._read.clear()
        low, dash, high = (part.strip() for part in text.partition("-"))
        found = None
        if dash and low.isdecimal() and high.isdecimal() and int(low) <= int(high):
            found = _Range(int(low), int(high))
        else:
            log.warning(
                "%s: label %s of %s is %r, no range min-max of tokens; it counts as missing", self.name, self._label, endpoint, text
            )
        self._read[text] = found
        return found


def _score(within: _Range | None, tokens: int) -> float:
    if within is None:
        return 0.5
    low, high = within
    if not low <= tokens <= high:
        return 0.3 / (1 + (low - tokens if tokens < low else tokens - high) / 1000)
    width = high - low
    if width == 0:
        return 1.0
    return 0.3 + 0.7 * (0.7 / (1 + width / 10_000) + 0.3 * (high - tokens) / width)
