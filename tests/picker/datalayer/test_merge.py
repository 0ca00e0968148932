"""What extractors may return, and what becomes of it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest

from picker.datalayer.datastore import Datastore
from picker.endpoint import Endpoint
from picker.plugin import Extracted


@pytest.mark.parametrize(
    ("extracted", "message"),
    [
        ({"a": 1}, "returns Extracted or None, got dict"),
        (Extracted(attributes={"a": float("nan")}), "attribute 'a': expected a finite number, got nan"),
        (Extracted(attributes={"a": "1"}), "attribute 'a': expected a finite number"),  # type: ignore[dict-item]
        (Extracted(names={"a": "word"}), "names 'a': expected a set of words"),  # type: ignore[dict-item]
        (Extracted(waiting=-1), "waiting: expected a finite number that is not negative"),
        (Extracted(attributes={"ok": 1.0}, kv_usage=float("inf")), "kv_usage: expected"),
    ],
)
def test_values_that_cannot_be_used(extracted: Any, message: str) -> None:
    datastore = Datastore()
    endpoint = Endpoint("a", "10.0.0.1", 1)
    datastore.set_endpoints("t", [endpoint])
    before = datastore.snapshot()
    with pytest.raises((TypeError, ValueError), match=message):
        datastore.apply(endpoint, extracted)
    assert datastore.snapshot() is before


def test_loads_from_an_extractor_are_an_answer() -> None:
    now = [5.0]
    datastore = Datastore(now=lambda: now[0])
    endpoint = Endpoint("a", "10.0.0.1", 1)
    datastore.set_endpoints("t", [endpoint])
    assert datastore.apply(endpoint, Extracted(waiting=3, kv_usage=0.5))
    snapshot = datastore.snapshot()
    assert _columns(snapshot.waiting, snapshot.running, snapshot.kv_usage) == [[3], [0], [0.5]]
    assert snapshot.metrics[0].updated_s == 5.0
    assert not datastore.apply(Endpoint("b", "10.0.0.2", 1), Extracted(waiting=1))


def _columns(*columns: Sequence[float]) -> list[list[float]]:
    return [list(column) for column in columns]
