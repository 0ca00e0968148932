"""What the director asks about objectives and model rewrites, wherever they come from (contract sections 1.7 and 2.3)."""

from __future__ import annotations

from typing import Protocol


class Objectives(Protocol):
    """How much requests matter, and which model answers them."""

    def priority(self, objective: str) -> int:
        """Higher goes first, negative may be shed; 0 for an objective that nobody has declared."""

    def target(self, model: str) -> str:
        """The model to ask instead of `model` (empty when the client named none); empty when no rewrite applies. Counts the decision."""


class _NoObjectives:
    def priority(self, objective: str) -> int:
        return 0

    def target(self, model: str) -> str:
        return ""


NO_OBJECTIVES: Objectives = _NoObjectives()
