"""Data producers run after those whose data they need; what cannot be had is an error of the configuration."""

from __future__ import annotations

import logging
from typing import Any

import pytest

from picker.data_order import in_order, missing_defaults
from picker.errors import ConfigError


class _Plugin:
    type = "test"

    def __init__(self, name: str, produces: str = "", consumes: str = "", optional: str = "") -> None:
        self.name = name
        self.produces, self.consumes, self.optional = [frozenset(keys.split()) for keys in (produces, consumes, optional)]


class Sync(_Plugin):
    def produce(self, request: Any, candidates: Any) -> None: ...


class Waiting(_Plugin):
    async def prepare(self, request: Any) -> None: ...


def place(name: str) -> str:
    return f"epp.yaml: {name}"


def order(*plugins: _Plugin) -> str:
    return " ".join(p.name for p in in_order(plugins, place))


def refused(*plugins: _Plugin) -> str:
    with pytest.raises(ConfigError) as error:
        in_order(plugins, place)
    return str(error.value)


@pytest.mark.parametrize(
    ("plugins", "expected"),
    [
        ((), ""),
        ((Sync("a", "x"), Sync("b", "y"), Sync("c", "z")), "a b c"),
        ((Sync("a", "x", "y"), Sync("b", "y")), "b a"),
        ((Sync("a", "x", "y"), Sync("b", "y", "z"), Sync("c", "w"), Sync("d", "z")), "d b a c"),
        ((Sync("a", "", "x"), Sync("b", "x"), Sync("c", "x")), "b c a"),  # both who produce it
        ((Sync("a", "x", "x"), Sync("b", "x")), "b a"),  # adds to it
        ((Sync("top", "t", "l r"), Sync("r", "r", "base"), Sync("l", "l", "base"), Sync("base", "base")), "base l r top"),
        ((Sync("a", "x", "tokens"), Waiting("w", "tokens", "ids"), Waiting("v", "ids")), "v w a"),
    ],
)
def test_each_runs_after_what_it_needs(plugins: tuple[_Plugin, ...], expected: str) -> None:
    assert order(*plugins) == expected


@pytest.mark.parametrize(
    ("plugins", "names"),
    [
        ((Sync("a", "x", "x"),), "a -> a"),
        ((Sync("a", "x", "y"), Sync("b", "y", "x")), "a -> b -> a"),
        ((Sync("first", "f", "x"), Sync("a", "x", "y"), Sync("b", "y", "z"), Sync("c", "z", "x")), "a -> b -> c -> a"),
    ],
)
def test_a_cycle_is_refused(plugins: tuple[_Plugin, ...], names: str) -> None:
    assert refused(*plugins) == f"epp.yaml: a: data producers wait for each other: {names} (consumes -> produces)"


def test_a_key_that_nobody_produces_is_refused() -> None:
    text = refused(Sync("a", "tenants"), Sync("b", "", "tenant"))
    assert text == "epp.yaml: b: 'b' (test) consumes 'tenant', which no plugin produces; did you mean 'tenants'?"


def test_an_optional_key_that_nobody_produces_is_reported(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        assert order(Sync("a", "x", "tenant", "tenant")) == "a"
    assert [r.getMessage() for r in caplog.records] == [
        "epp.yaml: a: 'a' (test) consumes 'tenant', which no plugin produces; it goes on without"
    ]


def test_what_is_asked_before_endpoints_are_looked_at_cannot_need_what_comes_afterwards() -> None:
    assert refused(Waiting("w", "ids", "load"), Sync("s", "load")) == (
        "epp.yaml: w: 'w' (test) consumes 'load' before endpoints are looked at, and 's' (test) produces it afterwards"
    )
    assert order(Waiting("w", "ids", "load"), Sync("s", "load"), Waiting("v", "load")) == "s v w"


def test_defaults_are_named_once_for_what_nobody_produces() -> None:
    needy = Sync("a", "", "prefix-cache-match-info tokenized-prompt mine")
    assert missing_defaults([needy]) == ["approx-prefix-cache-producer", "token-producer"]
    assert missing_defaults([needy, Sync("b", "prefix-cache-match-info")]) == ["token-producer"]
    assert missing_defaults([Sync("b", "", "")]) == []
