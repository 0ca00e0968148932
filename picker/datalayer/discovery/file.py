"""Endpoints listed in a YAML file that is watched: `--endpoints-file PATH`."""

from __future__ import annotations

import asyncio
import hashlib
import logging
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from pathlib import Path

import watchfiles

from picker.datalayer.datastore import Datastore
from picker.datalayer.discovery.document import MAX_FILE_BYTES, Entry, parse_document
from picker.datalayer.discovery.hosts import Hosts, Resolve, system_resolve
from picker.endpoint import Endpoint
from picker.errors import ConfigError

log = logging.getLogger(__name__)

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
    endpoints: int = 0


class FileDiscovery:
    """The endpoints of a file. A bad file refuses to start; a bad change keeps the last good list and says so. A DiscoverySource."""

    def __init__(
        self,
        path: Path | str,
        *,
        source: str = "file",
        poll_s: float = 5.0,
        refresh_s: float = 30.0,
        resolve: Resolve = system_resolve,
        watch: Watch = watch_directory,
        on_reload: Callable[[bool], None] = lambda good: None,
        watched: bool = True,
        now: Callable[[], float] = time.monotonic,
        wall: Callable[[], float] = time.time,
    ) -> None:
        """`poll_s`: the content is compared at least this often, whatever events arrive; `refresh_s`: DNS names are resolved again.

        `on_reload` is told after each load whether the file was good. `watched` false: the file is read once; names are still resolved.
        """
        self.source = source
        self.status = FileStatus()
        self._path = Path(path)
        self._poll_s = poll_s
        self._refresh_s = refresh_s
        self._watch = watch
        self._on_reload = on_reload
        self._watched = watched
        self._now = now
        self._wall = wall
        self._hosts = Hosts(resolve=resolve, now=now)
        self._entries: tuple[Entry, ...] = ()
        self._good: bytes | None = None  # digests of the content handed over, and of the last one refused
        self._bad: bytes | None = None
        self._resolved_s = 0.0
        self._datastore: Datastore | None = None
        self._synced = False

    @property
    def synced(self) -> bool:
        """Whether a good file has been handed over."""
        return self._synced

    async def start(self, datastore: Datastore) -> None:
        """Load and hand over. Raises ConfigError if the file cannot be read or used."""
        self._datastore = datastore
        await self._load()

    async def follow(self) -> None:
        """Load the file again when it has changed."""
        troubled = False
        while not self._watched:
            await asyncio.sleep(self._poll_s)
            await self._resolve_if_due()
        while True:
            try:
                async for _ in self._watch(self._path.absolute().parent, self._poll_s):
                    await self._look()
            except (OSError, RuntimeError) as error:
                # The directory is gone, or the system is out of inotify watches: comparing every poll_s is then all there is.
                if not troubled:
                    log.warning("cannot watch %s, comparing every %g s: %s", self._path.parent, self._poll_s, error)
                troubled = True
            await asyncio.sleep(self._poll_s)
            await self._look()

    async def _look(self) -> None:
        try:
            await self._load()
        except ConfigError as error:
            text = str(error)
            if text != self.status.last_error:
                log.error("keeping the last good list of %d endpoints: %s", self.status.endpoints, text)
                self.status.last_error = text
                self._on_reload(False)
        await self._resolve_if_due()

    async def _resolve_if_due(self) -> None:
        due_s = self._poll_s if self._hosts.unresolved else self._refresh_s
        if self._hosts.names and self._now() - self._resolved_s >= due_s:
            await self._resolve_and_hand_over()

    async def _load(self) -> None:
        """Raises ConfigError, once for each content."""
        try:
            raw = await asyncio.to_thread(_read, self._path)
        except ConfigError:
            self._bad = None
            raise
        digest = hashlib.blake2b(raw, digest_size=16).digest()
        if digest == self._bad:
            return
        if digest == self._good:
            if self.status.last_error is not None:
                self._bad = self.status.last_error = None
                log.info("%s is again as it was when it was last good", self._path)
                self._on_reload(True)
            return
        try:
            # In a thread: a full MiB of YAML (14,000 endpoints) takes 1.5 s to parse.
            entries = await asyncio.to_thread(parse_document, raw, str(self._path))
        except ConfigError:
            self._bad = digest
            raise
        self._good, self._bad = digest, None
        self._entries = entries
        self._hosts.track(entry.address for entry in entries)
        self.status.loaded_at_s = self._wall()
        self.status.last_error = None
        self.status.endpoints = len(entries)
        await self._resolve_and_hand_over()
        self._on_reload(True)
        log.info("%s lists %d endpoints", self._path, len(entries))

    async def _resolve_and_hand_over(self) -> None:
        assert self._datastore is not None, "start comes first"
        if self._hosts.names:
            await self._hosts.refresh()
        self._resolved_s = self._now()
        endpoints = [endpoint for entry in self._entries for endpoint in self._endpoints(entry)]
        self._datastore.set_endpoints(self.source, endpoints)
        self._synced = True

    def _endpoints(self, entry: Entry) -> list[Endpoint]:
        """One endpoint for each address of the entry; all but the first carry a number in their name."""
        return [
            Endpoint(f"{entry.name}-{number}" if number else entry.name, address, entry.port, entry.namespace, entry.labels)
            for number, address in self._hosts.addresses(entry.address)
        ]


def _read(path: Path) -> bytes:
    """The file, at most one byte more than is allowed. Raises ConfigError."""
    try:
        with path.open("rb") as file:
            return file.read(MAX_FILE_BYTES + 1)
    except OSError as error:
        raise ConfigError(f"{path}: {error.strerror or error}, expected a readable file") from None
