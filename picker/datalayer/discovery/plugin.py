"""`file-discovery`: the endpoints file as a plugin, for `dataLayer.discovery`."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import ClassVar

from picker.datalayer.discovery.file import FileDiscovery
from picker.plugin import Handle, Parameters


class FileDiscoveryParameters(Parameters, frozen=True, kw_only=True):
    """`path` of the file (`picker.datalayer.discovery.document`); `watch_file` false: it is read once, at the start."""

    path: str = ""
    watch_file: bool = True


class FileDiscoveryPlugin:
    """Makes the discovery source that the runner starts."""

    type: ClassVar[str] = "file-discovery"
    Parameters = FileDiscoveryParameters

    def __init__(self, name: str, parameters: FileDiscoveryParameters, handle: Handle) -> None:
        """Raises ValueError."""
        self.name = name
        if not parameters.path:
            raise ValueError("path: expected the name of a file, got none")
        self._path = Path(parameters.path)
        self._watch = parameters.watch_file

    def discovery(self, on_reload: Callable[[bool], None]) -> FileDiscovery:
        """`on_reload` is told after each load whether the file was good."""
        return FileDiscovery(self._path, on_reload=on_reload, watched=self._watch)
