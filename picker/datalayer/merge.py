"""What an extractor found, taken into what is known of an endpoint."""

from __future__ import annotations

import math
from dataclasses import replace

from picker.endpoint import EndpointMetrics
from picker.plugin import Extracted


def merged(metrics: EndpointMetrics, extracted: Extracted, now_s: float) -> EndpointMetrics:
    """`metrics` itself when nothing is new. `now_s` is the monotonic time of the answer in seconds.

    Raises TypeError or ValueError for values that no scorer could reckon with; nothing of such an answer is used.
    """
    if not isinstance(extracted, Extracted):
        raise TypeError(f"an extractor returns Extracted or None, got {type(extracted).__name__}")
    attributes, names = metrics.attributes, metrics.names
    for key, value in extracted.attributes.items():
        if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
            raise ValueError(f"attribute {key!r}: expected a finite number, got {value!r}")
        if attributes.get(key) != value:
            attributes = {**attributes, key: float(value)}
    for key, words in extracted.names.items():
        if isinstance(words, str):
            raise TypeError(f"names {key!r}: expected a set of words, got {words!r}")
        if names.get(key) != words:
            names = {**names, key: frozenset(words)}
    waiting, running, kv_usage = extracted.waiting, extracted.running, extracted.kv_usage
    if waiting is None and running is None and kv_usage is None:
        if attributes is metrics.attributes and names is metrics.names:
            return metrics
        return replace(metrics, attributes=attributes, names=names)
    for what, number in (("waiting", waiting), ("running", running), ("kv_usage", kv_usage)):
        if number is not None and not 0 <= number < math.inf:
            raise ValueError(f"{what}: expected a finite number that is not negative, got {number!r}")
    return replace(
        metrics,
        attributes=attributes,
        names=names,
        waiting=metrics.waiting if waiting is None else int(waiting),
        running=metrics.running if running is None else int(running),
        kv_usage=metrics.kv_usage if kv_usage is None else float(kv_usage),
        updated_s=now_s,
    )
