"""The objectives and model rewrites in force: one writer, immutable tables.

Contract section 2.3. A rule for an exact model comes before one for all models; among equals the rewrite with the oldest
creationTimestamp, then the order of its rules.
"""

from __future__ import annotations

import random
from bisect import bisect_right
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import accumulate
from typing import NamedTuple


class Target(NamedTuple):
    """A model, and its share of the requests."""

    model: str
    weight: int | None = None


class Rule(NamedTuple):
    """Which models (empty: all, and requests that name none) go to which targets (never empty)."""

    models: Sequence[str]
    targets: Sequence[Target]


@dataclass(frozen=True, slots=True)
class Rewrite:
    """One InferenceModelRewrite. Without a `created` time it counts as the oldest, as an unset time does in the reference."""

    name: str
    rules: Sequence[Rule]
    created: datetime | None = None


class _Choice:
    """Draws a target by weight; uniformly when no target has one. A target without a weight beside others that have one is never drawn."""

    __slots__ = ("_bounds", "_models", "_total", "name")

    def __init__(self, name: str, targets: Sequence[Target]) -> None:
        weighted = [(t.model, t.weight) for t in targets if t.weight is not None] or [(t.model, 1) for t in targets]
        self.name = name
        self._models = [model for model, _ in weighted]
        self._bounds = list(accumulate(weight for _, weight in weighted))
        self._total = self._bounds[-1]

    def draw(self, number: float) -> str:
        """`number` is from 0 up to, but not including, 1."""
        return self._models[bisect_right(self._bounds, number * self._total)]


class Table:
    """What is in force at one moment. Looked up per request, so precedence is settled here."""

    __slots__ = ("_exact", "_generic", "priorities", "rewrites")

    def __init__(self, priorities: Mapping[str, int] | None = None, rewrites: Sequence[Rewrite] = ()) -> None:
        """`priorities` by objective name; `rewrites` of equal age rank in the order given."""
        self.priorities = dict(priorities or {})
        self.rewrites = tuple(rewrites)
        self._exact: dict[str, _Choice] = {}
        self._generic: _Choice | None = None
        for rewrite in sorted(rewrites, key=lambda r: float("-inf") if r.created is None else r.created.timestamp()):
            for rule in rewrite.rules:
                choice = _Choice(rewrite.name, rule.targets)
                if not rule.models:
                    self._generic = self._generic or choice
                for model in rule.models:
                    self._exact.setdefault(model, choice)

    def choice(self, model: str) -> _Choice | None:
        """What decides about this model; None: nothing does."""
        return self._exact.get(model, self._generic)


class ObjectiveStore:
    """Answers the director (`picker.objectives.Objectives`). Whoever feeds it replaces the whole table."""

    def __init__(
        self, *, draw: Callable[[], float] | None = None, on_rewrite: Callable[[str, str, str], None] = lambda name, model, target: None
    ) -> None:
        """`draw` returns a number from 0 to below 1. `on_rewrite` is told the rewrite's name, the client's model and the target."""
        self.table = Table()
        self._draw = draw or random.Random().random
        self._on_rewrite = on_rewrite

    def replace(self, table: Table) -> None:
        """In force from the next request on."""
        self.table = table

    def priority(self, objective: str) -> int:
        """0 when it is not known."""
        return self.table.priorities.get(objective, 0)

    def target(self, model: str) -> str:
        """A target, drawn anew for each request; empty when no rule applies."""
        choice = self.table.choice(model)
        if choice is None:
            return ""
        target = choice.draw(self._draw())
        self._on_rewrite(choice.name, model, target)
        return target
