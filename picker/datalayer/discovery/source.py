"""What every discovery source looks like to the runner."""

from __future__ import annotations

from collections.abc import Callable
from typing import ClassVar, Protocol, runtime_checkable

from picker.datalayer.datastore import Datastore


class DiscoverySource(Protocol):
    """Tells a datastore which endpoints exist. It owns no task: the runner awaits `start`, then gives `follow` a task of its own."""

    source: str
    """Its name in `Datastore.set_endpoints`."""

    @property
    def synced(self) -> bool:
        """Whether the datastore has had a list from here; readiness waits for it."""

    async def start(self, datastore: Datastore) -> None:
        """Hand over the first list. Raises ConfigError if this source cannot be used as configured."""

    async def follow(self) -> None:
        """After `start`: hand over every change, until cancelled. Faults of the outside world are logged, never raised."""


@runtime_checkable
class DiscoveryPlugin(Protocol):
    """A plugin that `dataLayer.discovery` can name."""

    type: ClassVar[str]
    name: str

    def discovery(self, on_reload: Callable[[bool], None]) -> DiscoverySource:
        """A new source; `on_reload` is told after each load whether what was loaded could be used."""
