"""Plugins that a reload has replaced: closed, as soon as nobody uses them any more."""

from __future__ import annotations

import asyncio
import inspect
import logging
from collections.abc import Awaitable, Sequence
from typing import Any

from picker.preparation.prepare import Preparation
from picker.tasks import TaskOwner

log = logging.getLogger(__name__)

CLOSE_TIMEOUT_S = 5.0


class Retirement:
    """What has been replaced, and has not ended yet."""

    def __init__(self) -> None:
        self._tasks = TaskOwner()
        self._busy: list[Preparation] = []
        """Replaced, with requests that may still be in them."""

    def retire(self, preparation: Preparation | None, plugins: Sequence[Any]) -> None:
        """Close the plugins. Those that a request may be waiting for (AsyncDataProducer) are closed when all requests that were in
        preparation have ended, also those of earlier reloads. Needs a running loop where there is something to wait for."""
        if preparation is not None and preparation.open:
            self._busy.append(preparation)
            self._tasks.spawn(self._end(preparation), "end of a replaced preparation")
        later = [plugin for plugin in plugins if hasattr(plugin, "prepare")] if self._busy else []
        for plugin in plugins:
            if not any(plugin is other for other in later):
                self._close(plugin)
        if later:
            self._tasks.spawn(self._close_later(list(self._busy), later), "close replaced plugins")

    async def _end(self, preparation: Preparation) -> None:
        await preparation.ended()
        self._busy.remove(preparation)

    async def _close_later(self, users: Sequence[Preparation], plugins: Sequence[Any]) -> None:
        try:
            for preparation in users:
                await preparation.ended()
        finally:  # also when the picker stops meanwhile
            for plugin in plugins:
                self._close(plugin)

    def _close(self, plugin: Any) -> None:
        close = getattr(plugin, "close", None)
        if close is None:
            return
        try:
            waiting = close()
        except Exception:
            log.exception("plugin %s could not be closed", plugin.name)
            return
        if inspect.isawaitable(waiting):
            self._tasks.spawn(_closing(plugin, waiting), f"close {plugin.name}")

    async def close(self) -> None:
        """The picker stops: what is still in preparation is given up, then the plugins are closed."""
        for preparation in list(self._busy):
            await preparation.cancel()
        await self._tasks.ended()


async def _closing(plugin: Any, waiting: Awaitable[Any]) -> None:
    try:
        async with asyncio.timeout(CLOSE_TIMEOUT_S):
            await waiting
    except Exception:
        log.exception("plugin %s could not be closed", plugin.name)
