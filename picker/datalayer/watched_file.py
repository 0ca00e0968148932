"""A file that is loaded again when it has changed. A bad change keeps the last good content and says so."""

from __future__ import annotations

import asyncio
import hashlib
import logging
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Generic, TypeVar

import watchfiles

from picker.errors import ConfigError

log = logging.getLogger(__name__)

MAX_FILE_BYTES = 1024 * 1024

T = TypeVar("T")

Watch = Callable[[Path, float], AsyncIterator[object]]
"""Yields whenever something happened in a directory, and at the latest every so many seconds."""


def watch_directory(directory: Path, poll_s: float) -> AsyncIterator[object]:
    """File system events of one directory, without those below it: a rename over the file, or the swap of a ConfigMap's `..data`."""
    return watchfiles.awatch(
        directory, watch_filter=None, recursive=False, debounce=200, rust_timeout=int(poll_s * 1000), yield_on_timeout=True
    )


@dataclass(slots=True)
class WatchStatus:
    """What became of the file so far. `loaded_at_s` is the Unix time of the last good load, `last_error` None once the file is good."""

    loaded_at_s: float | None = None
    last_error: str | None = None


class WatchedFile(Generic[T]):
    """Reads, parses and hands over, each content once."""

    def __init__(
        self,
        path: Path | str,
        parse: Callable[[bytes, str], T],
        accept: Callable[[T], Awaitable[None]],
        status: WatchStatus,
        kept: Callable[[], str],
        *,
        poll_s: float = 5.0,
        watch: Watch = watch_directory,
        on_look: Callable[[], Awaitable[None]] | None = None,
        on_reload: Callable[[bool], None] = lambda good: None,
        wall: Callable[[], float] = time.time,
    ) -> None:
        """`parse` is given the bytes and the file's name, runs in a thread and raises ConfigError; `accept` gets what it returned.

        `kept` puts into words what stays in use when the file is bad. `on_look` is awaited whenever the file has been compared, at least
        every `poll_s`; `on_reload` is told after each load whether the file was good.
        """
        self.path = Path(path)
        self._parse = parse
        self._accept = accept
        self._status = status
        self._kept = kept
        self._poll_s = poll_s
        self._watch = watch
        self._on_look = on_look
        self._on_reload = on_reload
        self._wall = wall
        self._good: bytes | None = None  # digests of the content handed over, and of the last one refused
        self._bad: bytes | None = None

    async def follow(self) -> None:
        """Load the file again when it has changed."""
        troubled = False
        while True:
            try:
                async for _ in self._watch(self.path.absolute().parent, self._poll_s):
                    await self._look()
            except (OSError, RuntimeError) as error:
                # The directory is gone, or the system is out of inotify watches: comparing every poll_s is then all there is.
                if not troubled:
                    log.warning("cannot watch %s, comparing every %g s: %s", self.path.parent, self._poll_s, error)
                troubled = True
            await asyncio.sleep(self._poll_s)
            await self._look()

    async def _look(self) -> None:
        try:
            await self.load()
        except ConfigError as error:
            text = str(error)
            if text != self._status.last_error:
                log.error("keeping the last good %s: %s", self._kept(), text)
                self._status.last_error = text
                self._on_reload(False)
        if self._on_look is not None:
            await self._on_look()

    async def load(self) -> None:
        """Raises ConfigError, once for each content."""
        try:
            raw = await asyncio.to_thread(_read, self.path)
        except ConfigError:
            self._bad = None
            raise
        digest = hashlib.blake2b(raw, digest_size=16).digest()
        if digest == self._bad:
            return
        if digest == self._good:
            if self._status.last_error is not None:
                self._bad = self._status.last_error = None
                log.info("%s is again as it was when it was last good", self.path)
                self._on_reload(True)
            return
        try:
            # In a thread: a full MiB of YAML (14,000 endpoints) takes 1.5 s to parse.
            content = await asyncio.to_thread(self._parse, raw, str(self.path))
        except ConfigError:
            self._bad = digest
            raise
        self._good, self._bad = digest, None
        self._status.loaded_at_s = self._wall()
        self._status.last_error = None
        await self._accept(content)
        self._on_reload(True)


def _read(path: Path) -> bytes:
    """The file, at most one byte more than is allowed. Raises ConfigError."""
    try:
        with path.open("rb") as file:
            return file.read(MAX_FILE_BYTES + 1)
    except OSError as error:
        raise ConfigError(f"{path}: {error.strerror or error}, expected a readable file") from None
