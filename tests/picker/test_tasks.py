"""Background tasks have an owner, a name, and an end."""

from __future__ import annotations

import asyncio
import logging

import pytest

from picker.tasks import TaskOwner


async def test_a_task_has_its_name_and_its_result() -> None:
    owner = TaskOwner()

    async def work() -> int:
        return 7

    task = owner.spawn(work(), "worker")
    assert task.get_name() == "worker"
    assert await task == 7
    await owner.close("done")


async def test_close_cancels_says_why_and_waits() -> None:
    owner = TaskOwner()
    events: list[str] = []
    started = asyncio.Event()

    async def work() -> None:
        try:
            started.set()
            await asyncio.Event().wait()
        except asyncio.CancelledError as cancelled:
            events.append(cancelled.args[0])
            await asyncio.sleep(0)
            events.append("cleaned up")
            raise

    task = owner.spawn(work(), "worker")
    await started.wait()
    await owner.close("the picker stops")
    assert task.cancelled()
    assert events == ["the picker stops", "cleaned up"]
    await owner.close("again")


async def test_a_task_that_fails_is_logged_and_does_not_disturb_the_others(caplog: pytest.LogCaptureFixture) -> None:
    owner = TaskOwner()
    stay = asyncio.Event()

    async def fail() -> None:
        raise ValueError("broken")

    other = owner.spawn(stay.wait(), "other")
    failing = owner.spawn(fail(), "failing")
    with caplog.at_level(logging.ERROR):
        await asyncio.wait([failing])
        await asyncio.sleep(0)
    (record,) = caplog.records
    assert record.getMessage() == "task failing failed"
    assert record.exc_info is not None
    assert not other.done()
    await owner.close("done")


async def test_close_outlives_a_task_that_fails_on_its_way_out(caplog: pytest.LogCaptureFixture) -> None:
    owner = TaskOwner()
    started = asyncio.Event()

    async def work() -> None:
        try:
            started.set()
            await asyncio.Event().wait()
        finally:
            raise ValueError("broken while leaving")

    owner.spawn(work(), "worker")
    await started.wait()
    with caplog.at_level(logging.ERROR):
        await owner.close("done")
        await asyncio.sleep(0)
    assert [r.getMessage() for r in caplog.records] == ["task worker failed"]


async def test_a_finished_task_is_not_kept() -> None:
    owner = TaskOwner()
    await owner.spawn(asyncio.sleep(0), "short")
    await asyncio.sleep(0)
    assert not owner._tasks
