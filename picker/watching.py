"""A file that may change while we run: looked at when the file system says so, and from time to time; a bad change is kept out."""

from __future__ import annotations

import asyncio
import hashlib
import logging
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path

import watchfiles

from picker.errors import ConfigError

log = logging.getLogger(__name__)

POLL_S = 5.0
MAX_FILE_BYTES = 1 << 20

Watch = Callable[[Path, float], AsyncIterator[object]]
"""Yields whenever something happened in a directory, and at the latest every so many seconds."""


def watch_directory(directory: Path, poll_s: float) -> AsyncIterator[object]:
    """File system events of one directory, without those below it: a rename over the file, or the swap of a ConfigMap's `..data`."""
    return watchfiles.awatch(
        directory, watch_filter=None, recursive=False, debounce=200, rust_timeout=int(poll_s * 1000), yield_on_timeout=True
    )


@dataclass(slots=True)
class FileStatus:
    """What became of the file so far. `loaded_at_s` is the Unix time of the last good load, `last_error` None once the file is good."""

    loaded_at_s: float | None = None
    last_error: str | None = None


class WatchedFile:
    """Hands the content to `take` when it has changed. `take` raises ConfigError for a content that cannot be used: what is in use stays,
    that is logged with `kept` (what stays, in words), and the same content is not tried again."""

    def __init__(
        self,
        path: Path,
        take: Callable[[bytes], Awaitable[None]],
        status: FileStatus,
        *,
        max_bytes: int,
        kept: Callable[[], str],
        poll_s: float = POLL_S,
        watch: Watch = watch_directory,
        on_reload: Callable[[bool], None] = lambda good: None,
        wall: Callable[[], float] = time.time,
        in_use: bytes | None = None,
    ) -> None:
        """The content is compared every `poll_s` seconds at least, whatever events arrive; of a file that is longer than `max_bytes` one
        byte more is handed over. `on_reload` is told after each load whether the file was good; `in_use` is what has been taken before.
        """
        self.path = path
        self.status = status
        self._take = take
        self._max_bytes = max_bytes
        self._kept = kept
        self._poll_s = poll_s
        self._watch = watch
        self._on_reload = on_reload
        self._wall = wall
        # Digests of the content in use, and of the last one refused.
        self._good: bytes | None = None if in_use is None else _digest(in_use)
        self._bad: bytes | None = None

    async def follow(self, also: Callable[[], Awaitable[None]] | None = None) -> None:
        """Load the file again when it has changed, for ever. `also` is called after each look."""
        troubled = False
        while True:
            try:
                async for _ in self._watch(self.path.absolute().parent, self._poll_s):
                    await self._look(also)
            except (OSError, RuntimeError) as error:
                # The directory is gone, or the system is out of inotify watches: comparing every poll_s is then all there is.
                if not troubled:
                    log.warning("cannot watch %s, comparing every %g s: %s", self.path.parent, self._poll_s, error)
                troubled = True
            await asyncio.sleep(self._poll_s)
            await self._look(also)

    async def _look(self, also: Callable[[], Awaitable[None]] | None) -> None:
        try:
            await self.load()
        except ConfigError as error:
            text = str(error)
            if text != self.status.last_error:
                log.error("keeping %s: %s", self._kept(), text)
                self.status.last_error = text
                self._on_reload(False)
        if also is not None:
            await also()

    async def load(self) -> None:
        """Raises ConfigError, once for each content."""
        try:
            raw = await asyncio.to_thread(_read, self.path, self._max_bytes)
        except ConfigError:
            self._bad = None
            raise
        digest = _digest(raw)
        if digest == self._bad:
            return
        if digest == self._good:
            if self.status.last_error is not None:
                self._bad = self.status.last_error = None
                log.info("%s is again as it was when it was last good", self.path)
                self._on_reload(True)
            return
        try:
            await self._take(raw)
        except ConfigError:
            self._bad = digest
            raise
        self._good, self._bad = digest, None
        self.status.loaded_at_s = self._wall()
        self.status.last_error = None
        self._on_reload(True)


def _digest(raw: bytes) -> bytes:
    return hashlib.blake2b(raw, digest_size=16).digest()


def _read(path: Path, max_bytes: int) -> bytes:
    """The file, at most one byte more than is allowed. Raises ConfigError."""
    try:
        with path.open("rb") as file:
            return file.read(max_bytes + 1)
    except OSError as error:
        raise ConfigError(f"{path}: {error.strerror or error}, expected a readable file") from None
