"""A plugin that fails repeatedly is taken out, and tried again."""

from __future__ import annotations

import logging
from typing import Any

import pytest

from picker.foreign.breaker import STRIKES
from tests.picker.foreign.setting import Workshop, boom, plugin
from tests.picker.scheduling.pool import idle, only, request

TWO = only(idle(3), 0, 2)


@pytest.fixture
def shop() -> Workshop:
    return Workshop()


def test_the_breaker_opens_tries_again_and_doubles_its_pause(shop: Workshop, caplog: pytest.LogCaptureFixture) -> None:
    calls = 0
    broken = True

    def score(r: Any, c: Any) -> Any:
        nonlocal calls
        calls += 1
        if broken:
            raise OSError("down")
        return [1.0, 1.0]

    made = shop.make(plugin("score", score))

    def ask(times: int = 1) -> int:
        """How often the plugin was called."""
        before = calls
        for _ in range(times):
            made.score(request(), TWO)
        return calls - before

    assert ask(20) == STRIKES
    assert shop.taken_out() == ["Scorer"]
    assert shop.guards[0].taken_out == ["Scorer"]
    shop.now_s += 9.9
    assert ask(5) == 0
    shop.now_s += 0.2
    assert ask(5) == 1, "one trial, which failed: the pause is 20 s now"
    shop.now_s += 19.9
    assert ask(5) == 0
    broken = False
    shop.now_s += 0.2
    assert ask(5) == 5
    assert shop.taken_out() == []
    assert made.score(request(), TWO) == [1.0, 1.0]
    broken = True
    assert ask(9) == 2, "on probation: 5 - 1 strikes, less 0.5 for the good calls since"
    shop.now_s += 39.9
    assert ask() == 0
    state = shop.guards[0].state()["extension_points"][0]
    assert (state["state"], state["retry_in_s"], state["errors"]["raised"]) == ("taken out", 0.1, 8)
    assert "down" in state["last_error"]
    errors = [r for r in caplog.records if r.levelno == logging.ERROR]
    assert len(errors) == 5, "one line in ten seconds, and one each time it is taken out"
    assert errors[0].exc_info


def test_now_and_then_is_forgiven(shop: Workshop) -> None:
    turn = 0

    def score(r: Any, c: Any) -> Any:
        nonlocal turn
        turn += 1
        return [1.0, 1.0] if turn % 12 else boom()

    made = shop.make(plugin("score", score))
    for _ in range(1200):
        made.score(request(), TWO)
    assert shop.errors() == {("Scorer", "raised"): 100}
    assert shop.taken_out() == []


def test_a_slow_scorer_is_counted_then_taken_out(shop: Workshop) -> None:
    def score(r: Any, c: Any) -> Any:
        shop.now_s += 0.002
        return [1.0, 1.0]

    patient, hasty = shop.make(plugin("score", score)), shop.make(plugin("score", score), {"guard": {"callBudgetMs": 1}}, name="hasty")
    for _ in range(10):
        assert patient.score(request(), TWO) == [1.0, 1.0]
    for _ in range(5):
        assert hasty.score(request(), TWO) == [1.0, 1.0], "late, but an answer"
    assert hasty.score(request(), TWO) == [0.0, 0.0]
    assert shop.errors() == {("Scorer", "slow"): 5}
