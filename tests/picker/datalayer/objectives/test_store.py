"""Which rule decides, and which target is drawn."""

from __future__ import annotations

from collections import Counter
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from picker.datalayer.objectives.store import ObjectiveStore, Rewrite, Rule, Table, Target


def rule(target: str, *models: str) -> Rule:
    return Rule(models, [Target(target)])


def year(number: int) -> datetime:
    return datetime(number, 1, 1, tzinfo=UTC)


def target(model: str, *rewrites: Rewrite) -> str:
    store = ObjectiveStore()
    store.replace(Table(rewrites=rewrites))
    return store.target(model)


@pytest.mark.parametrize(
    ("model", "rewrites", "expected"),
    [
        ("m", [], ""),
        ("m", [Rewrite("r", [rule("t", "other")])], ""),
        ("m", [Rewrite("r", [rule("t", "other", "m")])], "t"),
        ("m", [Rewrite("r", [rule("t")])], "t"),
        ("", [Rewrite("r", [rule("t")])], "t"),
        ("", [Rewrite("r", [rule("t", "m")])], ""),
        # Exact before generic, whatever their order and age.
        ("m", [Rewrite("r", [rule("generic"), rule("exact", "m")])], "exact"),
        ("m", [Rewrite("old", [rule("generic")], year(2020)), Rewrite("new", [rule("exact", "m")], year(2026))], "exact"),
        ("x", [Rewrite("old", [rule("generic")], year(2020)), Rewrite("new", [rule("exact", "m")], year(2026))], "generic"),
        # Then the oldest; one without a time is older than all.
        ("m", [Rewrite("new", [rule("b", "m")], year(2026)), Rewrite("old", [rule("a", "m")], year(2020))], "a"),
        ("m", [Rewrite("new", [rule("b")], year(2026)), Rewrite("old", [rule("a")], year(2020))], "a"),
        ("m", [Rewrite("new", [rule("b", "m")], year(2020)), Rewrite("no time", [rule("a", "m")])], "a"),
        ("m", [Rewrite("first", [rule("a", "m")], year(2020)), Rewrite("second", [rule("b", "m")], year(2020))], "a"),
        # Then the order of the rules.
        ("m", [Rewrite("r", [rule("a", "m"), rule("b", "m")])], "a"),
        ("m", [Rewrite("r", [rule("a"), rule("b")])], "a"),
        # A target is not looked up again.
        ("a", [Rewrite("r", [rule("b", "a"), rule("c", "b")])], "b"),
    ],
)
def test_precedence(model: str, rewrites: list[Rewrite], expected: str) -> None:
    assert target(model, *rewrites) == expected


@pytest.mark.parametrize(
    ("weights", "number", "expected"),
    [
        ([90, 10], 0.0, 0),
        ([90, 10], 0.8999, 0),
        ([90, 10], 0.9, 1),
        ([90, 10], 1 - 2**-53, 1),
        ([None, None, None], 0.0, 0),
        ([None, None, None], 0.34, 1),
        ([None, None, None], 0.999, 2),
        ([None, 5, None], 0.0, 1),
        ([None, 5, None], 1 - 2**-53, 1),
        ([1, None, 1], 0.5, 2),
        ([1_000_000, 1], 1 - 2**-53, 1),
        ([7], 0.5, 0),
    ],
)
def test_weights(weights: list[int | None], number: float, expected: int) -> None:
    store = ObjectiveStore(draw=lambda: number)
    targets = [Target(str(i), weight) for i, weight in enumerate(weights)]
    store.replace(Table(rewrites=[Rewrite("r", [Rule((), targets)])]))
    assert store.target("m") == str(expected)


@given(st.lists(st.none() | st.integers(1, 1_000_000), min_size=1, max_size=8))
def test_each_target_gets_its_share_of_evenly_spread_draws(weights: list[int | None]) -> None:
    draws = 1000
    numbers = iter([(i + 0.5) / draws for i in range(draws)])
    store = ObjectiveStore(draw=lambda: next(numbers))
    store.replace(Table(rewrites=[Rewrite("r", [Rule((), [Target(str(i), w) for i, w in enumerate(weights)])])]))
    counts = Counter(store.target("m") for _ in range(draws))
    shares = [1 if all(w is None for w in weights) else w or 0 for w in weights]
    for i, share in enumerate(shares):
        assert abs(counts[str(i)] - draws * share / sum(shares)) <= 1
        assert share or not counts[str(i)]


def test_priorities_and_what_is_counted() -> None:
    counted: list[tuple[str, str, str]] = []
    store = ObjectiveStore(on_rewrite=lambda *labels: counted.append(labels))
    assert (store.priority("batch"), store.target("m")) == (0, "")
    store.replace(Table({"batch": -1}, [Rewrite("r", [rule("m", "m")])]))
    assert (store.priority("batch"), store.priority("chat")) == (-1, 0)
    assert (store.target("m"), store.target("x")) == ("m", "")
    assert counted == [("r", "m", "m")]
    store.replace(Table())
    assert (store.priority("batch"), store.target("m")) == (0, "")
