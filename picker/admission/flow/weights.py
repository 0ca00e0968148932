"""Bands that share the pool instead of giving way to each other."""

from __future__ import annotations

from collections.abc import Sequence

from picker.admission.flow.queues import Band


def share(bands: Sequence[Band]) -> Band:
    """Of the weighted bands among these, each has turns in proportion to its weight (smooth weighted round robin). One must be there."""
    sharing = [b for b in bands if b.settings.weight is not None]
    total = 0.0
    for band in sharing:
        weight = band.settings.weight or 0.0
        band.credit += weight
        total += weight
    chosen = max(sharing, key=lambda b: b.credit)
    chosen.credit -= total
    return chosen
