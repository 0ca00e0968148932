"""Endpoints listed in a YAML file that is watched: `--endpoints-file PATH`."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from picker.datalayer.datastore import Datastore
from picker.datalayer.discovery.document import Entry, parse_document
from picker.datalayer.discovery.hosts import Hosts, Resolve, system_resolve
from picker.datalayer.watched_file import Watch, WatchedFile, WatchStatus, watch_directory
from picker.endpoint import Endpoint

log = logging.getLogger(__name__)


@dataclass(slots=True)
class FileStatus(WatchStatus):
    """With the number of endpoints listed."""

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
        now: Callable[[], float] = time.monotonic,
        wall: Callable[[], float] = time.time,
    ) -> None:
        """`poll_s`: the content is compared at least this often, whatever events arrive; `refresh_s`: DNS names are resolved again.

        `on_reload` is told after each load whether the file was good.
        """
        self.source = source
        self.status = FileStatus()
        self._file = WatchedFile(
            path,
            parse_document,
            self._accept,
            self.status,
            lambda: f"list of {self.status.endpoints} endpoints",
            poll_s=poll_s,
            watch=watch,
            on_look=self._refresh,
            on_reload=on_reload,
            wall=wall,
        )
        self._poll_s = poll_s
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
        """Load the file again when it has changed."""
        await self._file.follow()

    async def _refresh(self) -> None:
        due_s = self._poll_s if self._hosts.unresolved else self._refresh_s
        if self._hosts.names and self._now() - self._resolved_s >= due_s:
            await self._resolve_and_hand_over()

    async def _accept(self, entries: tuple[Entry, ...]) -> None:
        self._entries = entries
        self._hosts.track(entry.address for entry in entries)
        self.status.endpoints = len(entries)
        await self._resolve_and_hand_over()
        log.info("%s lists %d endpoints", self._file.path, len(entries))

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
