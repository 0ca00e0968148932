"""Usage limits: up to which saturation requests of each priority are let in (contract section 4.8)."""

from __future__ import annotations

from collections.abc import Sequence
from math import inf
from typing import Annotated, Literal

import msgspec

from picker.plugin import Handle, Parameters


class StaticParameters(Parameters, frozen=True):
    """The same ceiling for all."""

    threshold: Annotated[float, msgspec.Meta(gt=0)] = 1.0


class StaticUsageLimitPolicy:
    """One ceiling for every priority."""

    type = "static-usage-limit-policy"
    Parameters = StaticParameters

    def __init__(self, name: str, parameters: StaticParameters, handle: Handle) -> None:
        self.name = name
        self._threshold = parameters.threshold

    def ceilings(self, priorities: Sequence[int], saturation: float) -> list[float]:
        """All alike."""
        return [self._threshold] * len(priorities)


class HoldbackParameters(Parameters, frozen=True):
    """`rank`: by place among the priorities there are; `value`: in proportion to the priority itself."""

    min_ceiling: Annotated[float, msgspec.Meta(gt=0)]
    max_ceiling: Annotated[float, msgspec.Meta(gt=0)] = 1.0
    shape: Literal["linear"] = "linear"
    domain: Literal["rank", "value"] = "rank"

    def __post_init__(self) -> None:
        if self.min_ceiling > self.max_ceiling:
            raise ValueError(f"minCeiling {self.min_ceiling} is above maxCeiling {self.max_ceiling}")


class PriorityHoldbackPolicy:
    """Lower priorities stop sooner and leave the rest to higher ones: c_i = max - i (max - min) / (N - 1)."""

    type = "priority-holdback-policy"
    Parameters = HoldbackParameters
    experimental = True

    def __init__(self, name: str, parameters: HoldbackParameters, handle: Handle) -> None:
        self.name = name
        self._p = parameters

    def ceilings(self, priorities: Sequence[int], saturation: float) -> list[float]:
        """The highest priority has maxCeiling, the lowest minCeiling; a single one has maxCeiling."""
        high, span, count = self._p.max_ceiling, self._p.max_ceiling - self._p.min_ceiling, len(priorities)
        if count < 2:
            return [high] * count
        if self._p.domain == "rank":
            return [high - i * span / (count - 1) for i in range(count)]
        top, reach = priorities[0], priorities[0] - priorities[-1]
        return [high - (top - p) * span / reach if reach else high for p in priorities]


class SoftReflectiveParameters(Parameters, frozen=True):
    """None."""


class SoftReflectiveCeilingPolicy:
    """Ceilings that fall as the pool fills: ceiling_i = 1 - i x saturation / (N - 1). Beyond its ceiling a priority is open now and then,
    once in round(saturation / (1 - saturation)) + 1 looks, so that it is slowed down and not shut out."""

    type = "soft-reflective-ceiling-policy"
    Parameters = SoftReflectiveParameters
    experimental = True

    def __init__(self, name: str, parameters: SoftReflectiveParameters, handle: Handle) -> None:
        self.name = name
        self._looks: dict[int, int] = {}

    def ceilings(self, priorities: Sequence[int], saturation: float) -> list[float]:
        """The highest priority has 1."""
        count = len(priorities)
        ceilings: list[float] = []
        for i, priority in enumerate(priorities):
            ceiling = 1.0 if count < 2 else 1.0 - i * saturation / (count - 1)
            if i and ceiling <= saturation < 1.0 and self._open(priority, saturation):
                ceiling = inf
            ceilings.append(ceiling)
        if len(self._looks) > 2 * count + 64:
            self._looks = {p: n for p, n in self._looks.items() if p in priorities}
        return ceilings

    def _open(self, priority: int, saturation: float) -> bool:
        period = max(1, round(saturation / (1.0 - saturation)))
        looks = self._looks.get(priority, 0)
        self._looks[priority] = looks + 1
        return looks % (period + 1) == period
