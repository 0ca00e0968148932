"""Endpoints listed in a YAML file that is watched: `--endpoints-file PATH`."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from picker.datalayer.datastore import Datastore
from picker.datalayer.discovery.document import Entry, parse_document
from picker.datalayer.discovery.hosts import Hosts, Resolve, system_resolve
from picker.endpoint import Endpoint
from picker.watching import MAX_FILE_BYTES, POLL_S, FileStatus, Watch, WatchedFile, watch_directory

log = logging.getLogger(__name__)


@dataclass(slots=True)
class EndpointsFileStatus(FileStatus):
    """And how many endpoints the last good list has."""

    endpoints: int = 0


class FileDiscovery:
    """The endpoints of a file. A bad file refuses to start; a bad change keeps the last good list and says so. A DiscoverySource."""

    def __init__(
        self,
        path: Path | str,
        *,
        source: str = "file",
        poll_s: float = POLL_S,
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
        self.status = status = EndpointsFileStatus()
        self._path = Path(path)
        self._file = WatchedFile(
            self._path,
            self._take,
            status,
            max_bytes=MAX_FILE_BYTES,
            kept=lambda: f"the last good list of {status.endpoints} endpoints",
            poll_s=poll_s,
            watch=watch,
            on_reload=on_reload,
            wall=wall,
        )
        self._poll_s = poll_s
        self._watched = watched
        self._refresh_s = refresh_s
        self._now = now
        self._hosts = Hosts(resolve=resolve, now=now)
        self._entries: tuple[Entry, ...] = ()
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
        await self._file.load()

    async def follow(self) -> None:
        """Load the file again when it has changed, and resolve its names from time to time."""
        while not self._watched:
            await asyncio.sleep(self._poll_s)
            await self._refresh_names()
        await self._file.follow(self._refresh_names)

    async def _refresh_names(self) -> None:
        due_s = self._poll_s if self._hosts.unresolved else self._refresh_s
        if self._hosts.names and self._now() - self._resolved_s >= due_s:
            await self._resolve_and_hand_over()

    async def _take(self, raw: bytes) -> None:
        # In a thread: a full MiB of YAML (14,000 endpoints) takes 1.5 s to parse.
        entries = await asyncio.to_thread(parse_document, raw, str(self._path))
        self._entries = entries
        self._hosts.track(entry.address for entry in entries)
        self.status.endpoints = len(entries)
        await self._resolve_and_hand_over()
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
