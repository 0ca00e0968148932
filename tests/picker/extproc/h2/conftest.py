"""Sockets are tested on uvloop, which serves in production, and on asyncio's own loop, which behaves differently at the edges."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping

import uvloop


def pytest_asyncio_loop_factories() -> Mapping[str, Callable[[], asyncio.AbstractEventLoop]]:
    """Each asynchronous test runs once per loop."""
    return {"uvloop": uvloop.new_event_loop, "asyncio": asyncio.new_event_loop}
