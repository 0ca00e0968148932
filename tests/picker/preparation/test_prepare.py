"""How requests wait for producers that ask somebody else: at the same time, not for ever, and never in vain."""

from __future__ import annotations

import asyncio
import logging
from typing import Any, ClassVar

import pytest

from picker.metrics import Metrics
from picker.preparation.prepare import Preparation
from picker.request import InferenceRequest
from tests.picker.scheduling.pool import request


class Asker:
    """Waits until it is let go; then marks the request, or raises."""

    type = "asker"
    produces: ClassVar[frozenset[str]] = frozenset({"mark"})

    def __init__(self, name: str = "a", *, fails: Exception | None = None, timeout_s: float = 20.0, wanted: bool = True) -> None:
        self.name, self.timeout_s = name, timeout_s
        self.go = asyncio.Event()
        self.begun = self.closed = 0
        self._fails, self._wanted = fails, wanted

    def wants(self, request: InferenceRequest) -> bool:
        return self._wanted

    async def prepare(self, request: InferenceRequest) -> None:
        self.begun += 1
        await self.go.wait()
        if self._fails is not None:
            raise self._fails
        request.attributes[self.name] = True

    async def close(self) -> None:
        self.closed += 1


class Rig:
    """A preparation, and which requests it has let go on."""

    def __init__(self, *askers: Any, max_requests: int = 10) -> None:
        self.metrics = Metrics()
        self.preparation = Preparation(askers, self.metrics, max_requests=max_requests)
        self.done: list[InferenceRequest] = []

    def ask(self) -> tuple[InferenceRequest, Any]:
        made = request(b"x")
        return made, self.preparation(made, lambda: self.done.append(made))

    @property
    def open(self) -> float:
        return self.metrics.preparing.cell().value

    @property
    def failures(self) -> dict[tuple[str, ...], float]:
        return {labels: cell.value for labels, cell in self.metrics.preparation_failures.cells.items()}


async def turns() -> None:
    """Let everything run that can."""
    for _ in range(10):
        await asyncio.sleep(0)


async def test_all_are_asked_at_the_same_time_and_then_it_goes_on() -> None:
    one, two = Asker("one"), Asker("two")
    rig = Rig(one, two)
    made, _ = rig.ask()
    await turns()
    assert (one.begun, two.begun, rig.open, rig.done) == (1, 1, 1, [])
    two.go.set()
    await turns()
    assert rig.done == []
    one.go.set()
    await turns()
    assert rig.done == [made] and made.attributes == {"one": True, "two": True}
    assert (rig.open, rig.failures) == (0, {})


async def test_nobody_wants_it() -> None:
    rig = Rig(Asker(wanted=False))
    made, leave = rig.ask()
    assert rig.done == [made]
    leave()
    assert rig.open == 0


async def test_failures_are_counted_and_logged_now_and_then(caplog: pytest.LogCaptureFixture) -> None:
    good, bad, slow = Asker("good"), Asker("bad", fails=OSError("down")), Asker("slow", timeout_s=1e-9)
    good.go.set()
    bad.go.set()
    rig = Rig(good, bad, slow)
    with caplog.at_level(logging.WARNING):
        for count in range(1, 4):
            made, _ = rig.ask()
            async with asyncio.timeout(20):
                while len(rig.done) < count:  # noqa: ASYNC110
                    await asyncio.sleep(0)
            assert made.attributes == {"good": True}
    assert rig.failures == {("bad", "asker", "error"): 3, ("slow", "asker", "timeout"): 3}
    assert sorted(record.getMessage().partition(": ")[2] for record in caplog.records) == ["OSError: down", "nothing within 1e-09 s"]


async def test_one_that_cannot_even_say_what_it_wants_is_a_failure() -> None:
    asker = Asker()
    asker.wants = lambda request: 1 // 0 > 0  # type: ignore[method-assign]
    rig = Rig(asker)
    made, _ = rig.ask()
    assert rig.done == [made] and rig.failures == {("a", "asker", "error"): 1}


@pytest.mark.parametrize("started", [True, False])
async def test_a_client_that_leaves_ends_the_asking(started: bool) -> None:
    asker = Asker()
    rig = Rig(asker)
    made, leave = rig.ask()
    if started:
        await turns()
    leave()
    leave()
    asker.go.set()
    await turns()
    assert (asker.begun, rig.open, rig.done, rig.failures, made.attributes) == (int(started), 0, [], {}, {})


async def test_too_many_go_on_as_they_are() -> None:
    asker = Asker()
    rig = Rig(asker, max_requests=2)
    for _ in range(3):
        last, _ = rig.ask()
    assert rig.done == [last] and rig.open == 2 and rig.failures == {("a", "asker", "busy"): 1}
    asker.go.set()
    await turns()
    assert len(rig.done) == 3 and rig.open == 0


async def test_closing_ends_everything() -> None:
    asker = Asker()
    rig = Rig(asker)
    rig.ask()
    await turns()
    await rig.preparation.close()
    assert (rig.done, rig.open, asker.closed) == ([], 0, 1)


async def test_one_that_needs_what_another_produces_is_asked_after_it() -> None:
    first, second, beside = Asker("first"), Asker("second", timeout_s=1.0), Asker("beside")
    second.consumes = frozenset({"mark"})  # type: ignore[attr-defined]
    second.produces = frozenset({"more"})  # type: ignore[misc]
    rig = Rig(first, beside, second)
    made, _ = rig.ask()
    await turns()
    assert (first.begun, beside.begun, second.begun) == (1, 1, 0)
    first.go.set()
    await turns()
    assert second.begun == 0, "both produce what it needs"
    beside.go.set()
    await turns()
    assert second.begun == 1 and rig.done == [] and rig.preparation.open
    second.go.set()
    await rig.preparation.ended()
    assert rig.done == [made] and not rig.preparation.open
    assert list(made.attributes) == ["first", "beside", "second"]
