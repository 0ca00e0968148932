"""Objectives and model rewrites from a YAML file that is watched: `--objectives-file FILE`."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from picker.datalayer.objectives.document import parse_documents
from picker.datalayer.objectives.store import ObjectiveStore
from picker.watching import MAX_FILE_BYTES, POLL_S, FileStatus, Watch, WatchedFile, watch_directory

log = logging.getLogger(__name__)


@dataclass(slots=True)
class ObjectivesStatus(FileStatus):
    """With what is in force; `skipped` documents are for other pools."""

    objectives: int = 0
    rewrites: int = 0
    skipped: int = 0


class ObjectivesFile:
    """Writes the store. A bad file refuses to start; a bad change keeps the last good content and says so."""

    def __init__(
        self,
        path: Path | str,
        store: ObjectiveStore,
        *,
        pool_name: str,
        poll_s: float = POLL_S,
        watch: Watch = watch_directory,
        on_reload: Callable[[bool], None] = lambda good: None,
        wall: Callable[[], float] = time.time,
    ) -> None:
        """Objects whose `poolRef` names another pool than `pool_name` are not used. `on_reload` is told after each load."""
        self.status = ObjectivesStatus()
        self._store = store
        self._pool_name = pool_name
        self._file = WatchedFile(
            Path(path),
            self._take,
            self.status,
            max_bytes=MAX_FILE_BYTES,
            kept=lambda: f"the last good {self.status.objectives} objectives and {self.status.rewrites} rewrites",
            poll_s=poll_s,
            watch=watch,
            on_reload=on_reload,
            wall=wall,
        )

    async def start(self) -> None:
        """Load. Raises ConfigError if the file cannot be read or used."""
        await self._file.load()

    async def follow(self) -> None:
        """Load the file again when it has changed."""
        await self._file.follow()

    async def _take(self, raw: bytes) -> None:
        # In a thread: a full MiB of YAML takes more than a second to parse.
        declared = await asyncio.to_thread(parse_documents, raw, str(self._file.path), pool_name=self._pool_name)
        table = declared.table
        self._store.replace(table)
        self.status.objectives = len(table.priorities)
        self.status.rewrites = len(table.rewrites)
        self.status.skipped = declared.skipped
        log.info("%s declares %d objectives and %d rewrites", self._file.path, self.status.objectives, self.status.rewrites)
