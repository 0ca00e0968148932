"""Filters: label selectors and roles."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from picker.endpoint import EndpointMetrics
from picker.plugin import Filter
from picker.scheduling.filters import ROLE_LABEL, ByLabelFilter, DecodeFilter, EncodeFilter, LabelSelectorFilter, PrefillFilter
from tests.picker.scheduling.pool import build, only, pool, request

LABELS: list[dict[str, str]] = [
    {"zone": "a", "gpu": "h200"},
    {"zone": "b", "gpu": "h200"},
    {"zone": "a"},
    {},
    {"zone": "", "gpu": "l4"},
]


def kept(selector: dict[str, Any], labels: list[dict[str, str]] = LABELS) -> list[int]:
    snapshot = pool([EndpointMetrics()] * len(labels), labels=labels)
    return list(build(LabelSelectorFilter, selector).filter(request(), snapshot.candidates()).positions)


@pytest.mark.parametrize(
    ("selector", "positions"),
    [
        ({}, [0, 1, 2, 3, 4]),
        ({"matchLabels": {"zone": "a"}}, [0, 2]),
        ({"matchLabels": {"zone": ""}}, [4]),
        ({"matchLabels": {"zone": "a", "gpu": "h200"}}, [0]),
        ({"matchLabels": {"zone": "c"}}, []),
        ({"matchExpressions": [{"key": "zone", "operator": "In", "values": ["a", "b"]}]}, [0, 1, 2]),
        ({"matchExpressions": [{"key": "zone", "operator": "NotIn", "values": ["a"]}]}, [1, 3, 4]),
        ({"matchExpressions": [{"key": "gpu", "operator": "Exists"}]}, [0, 1, 4]),
        ({"matchExpressions": [{"key": "zone", "operator": "Exists"}]}, [0, 1, 2, 4]),
        ({"matchExpressions": [{"key": "gpu", "operator": "DoesNotExist"}]}, [2, 3]),
        ({"matchLabels": {"zone": "a"}, "matchExpressions": [{"key": "gpu", "operator": "DoesNotExist", "values": []}]}, [2]),
        (
            {"matchExpressions": [{"key": "gpu", "operator": "Exists"}, {"key": "zone", "operator": "NotIn", "values": ["a", ""]}]},
            [1],
        ),
    ],
)
def test_label_selector(selector: dict[str, Any], positions: list[int]) -> None:
    assert kept(selector) == positions


def test_label_selector_of_a_subset_keeps_positions_of_the_snapshot() -> None:
    snapshot = pool([EndpointMetrics()] * 5, labels=LABELS)
    left = build(LabelSelectorFilter, {"matchLabels": {"gpu": "h200"}}).filter(request(), only(snapshot, 1, 2, 4))
    assert list(left.positions) == [1]
    assert left.endpoints == (snapshot.endpoints[1],)
    assert left.snapshot is snapshot


@pytest.mark.parametrize(
    ("requirement", "text"),
    [
        ({"key": "a", "operator": "In"}, "operator In needs values"),
        ({"key": "a", "operator": "NotIn", "values": []}, "operator NotIn needs values"),
        ({"key": "a", "operator": "Exists", "values": ["x"]}, "operator Exists takes no values"),
        ({"key": "a", "operator": "in", "values": ["x"]}, "Invalid enum value 'in'"),
        ({"key": "a"}, "missing required field `operator`"),
        ({"operator": "Exists"}, "missing required field `key`"),
        ({"key": "a", "operator": "Exists", "value": "x"}, "unknown field `value`"),
        ({"key": "a", "operator": "In", "values": [1]}, "Expected `str`, got `int`"),
    ],
)
def test_a_wrong_expression_is_refused(requirement: dict[str, Any], text: str) -> None:
    with pytest.raises(msgspec.ValidationError, match=text):
        build(LabelSelectorFilter, {"matchExpressions": [requirement]})


ROLES = ["decode", "prefill-decode", "both", "encode-prefill-decode", None, "prefill", "encode-prefill", "encode", "other", ""]


@pytest.mark.parametrize(
    ("cls", "roles"),
    [
        (DecodeFilter, ["decode", "prefill-decode", "both", "encode-prefill-decode", None]),
        (PrefillFilter, ["prefill-decode", "both", "encode-prefill-decode", "prefill", "encode-prefill"]),
        (EncodeFilter, ["encode-prefill-decode", "encode-prefill", "encode"]),
    ],
)
def test_role_filters(cls: type[Any], roles: list[str | None]) -> None:
    snapshot = pool([EndpointMetrics()] * len(ROLES), labels=[{} if r is None else {ROLE_LABEL: r} for r in ROLES])
    left = build(cls).filter(request(), snapshot.candidates())
    assert [ROLES[p] for p in left.positions] == roles


@pytest.mark.parametrize("cls", [LabelSelectorFilter, DecodeFilter, PrefillFilter, EncodeFilter])
def test_they_are_filters(cls: type[Any]) -> None:
    assert isinstance(build(cls), Filter)


def test_nothing_taken_out_costs_no_copy() -> None:
    candidates = pool([EndpointMetrics()] * 2).candidates()
    assert build(DecodeFilter).filter(request(), candidates) is candidates


def test_what_was_left_is_kept_for_the_same_endpoints_and_for_no_others() -> None:
    first = pool([EndpointMetrics()] * 5, labels=LABELS)
    other = pool([EndpointMetrics()] * 2, labels=[{"zone": "b"}, {"zone": "a"}])
    made = build(LabelSelectorFilter, {"matchLabels": {"zone": "a"}})
    asked: list[str] = []
    wanted = made._wanted
    made._wanted = lambda endpoint: asked.append(endpoint.name) or wanted(endpoint)
    for snapshot, positions, news in [(first, [0, 2], 5), (first, [0, 2], 0), (other, [1], 2), (first, [0, 2], 5)]:
        asked.clear()
        left = made.filter(request(), snapshot.candidates())
        assert list(left.positions) == positions
        assert left.endpoints == tuple([snapshot.endpoints[p] for p in positions])
        assert left.snapshot is snapshot
        assert len(asked) == news
    assert list(made.filter(request(), only(first, 2, 3)).positions) == [2]
    everybody = build(DecodeFilter)
    for _ in range(2):
        candidates = first.candidates()
        assert everybody.filter(request(), candidates) is candidates


@pytest.mark.parametrize(
    ("parameters", "left"),
    [({"validValues": ["a"]}, [0, 2]), ({"validValues": ["b", ""], "allowsNoLabel": True}, [1, 3, 4]), ({"allowsNoLabel": True}, [3])],
)
def test_by_label(parameters: dict[str, Any], left: list[int]) -> None:
    snapshot = pool([EndpointMetrics()] * 5, labels=LABELS)
    assert list(build(ByLabelFilter, {"label": "zone", **parameters}).filter(request(), snapshot.candidates()).positions) == left


def test_by_label_that_nobody_could_match_is_refused() -> None:
    with pytest.raises(msgspec.ValidationError, match="no endpoint could match"):
        build(ByLabelFilter, {"label": "zone"})
