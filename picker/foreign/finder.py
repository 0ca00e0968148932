"""Where foreign plugin classes come from: installed packages (entry points), and directories given with `--plugin-path`.

Nothing is imported before a configuration uses it: an entry point is known by its name, which is the plugin type.
"""

from __future__ import annotations

import importlib
import re
import sys
from collections.abc import Iterable, Sequence
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from typing import Any

from picker.errors import ConfigError
from picker.foreign.guard import Guard
from picker.foreign.make import ForeignType, last_line
from picker.metrics import Metrics
from picker.registry import nearest

GROUP = "fairlead.plugins"
_DOTTED = re.compile(r"[^\W\d]\w*(\.[^\W\d]\w*)+")


def installed() -> list[EntryPoint]:
    """The entry points of all installed packages, by name."""
    return sorted(entry_points(group=GROUP), key=lambda e: (e.name, e.value))


class Finder:
    """Finds classes by type, and remembers the guards of the plugins made from them."""

    def __init__(self, metrics: Metrics, paths: Sequence[Path] = (), entries: Iterable[EntryPoint] | None = None) -> None:
        """`entries` stand in for what is installed. Raises ConfigError when a path is no directory."""
        self.guards: list[Guard] = []
        self._metrics = metrics
        self._entries = None if entries is None else list(entries)
        self._paths = [path.resolve() for path in paths]
        for path in self._paths:
            if not path.is_dir():
                raise ConfigError(f"--plugin-path {path}: there is no such directory")
            if str(path) not in sys.path:
                # At the end: a file there must not take the place of a module that something else imports.
                sys.path.append(str(path))
                importlib.invalidate_caches()

    def types(self) -> list[str]:
        """The types of installed packages. What lies in directories is found by its dotted name only."""
        return list(dict.fromkeys(entry.name for entry in self._known()))

    def origin(self, type_: str) -> str | None:
        """Which installed package offers a type; None when none does."""
        found = [_origin(entry) for entry in self._known() if entry.name == type_]
        return " and ".join(found) if found else None

    def find(self, type_: str) -> ForeignType | None:
        """None when there is nothing of that name. Raises ConfigError when there is, and it cannot be used."""
        found = [entry for entry in self._known() if entry.name == type_]
        if len({entry.value for entry in found}) > 1:
            raise ConfigError(
                f"plugin type '{type_}' is offered twice: {' and '.join(map(_origin, found))}; uninstall one, or rename its entry point"
            )
        if found:
            return self._from_entry(type_, found[0])
        if _DOTTED.fullmatch(type_) and self._paths:
            return self._from_path(type_)
        if _DOTTED.fullmatch(type_):
            raise ConfigError(f"plugin type '{type_}' is a dotted path: say with --plugin-path in which directory its module lies")
        return None

    def _known(self) -> list[EntryPoint]:
        if self._entries is None:
            self._entries = installed()
        return self._entries

    def _from_entry(self, type_: str, entry: EntryPoint) -> ForeignType:
        what = f"plugin type '{type_}' ({_origin(entry)})"
        module = _import(entry.module, what)
        cls: Any = module
        for attribute in filter(None, entry.attr.split(".")):
            cls = _attribute(cls, attribute, what)
        own = getattr(cls, "type", type_)
        if own != type_:
            raise ConfigError(f"{what}: the class says type = {own!r}; name the entry point like that, or leave it out of the class")
        return ForeignType(cls, type_, _origin(entry), self._metrics, self.guards.append)

    def _from_path(self, type_: str) -> ForeignType:
        where = ", ".join(map(str, self._paths))
        module_name, _, class_name = type_.rpartition(".")
        what = f"plugin type '{type_}' (--plugin-path {where})"
        top = module_name.partition(".")[0]
        if not any((path / top).is_dir() or (path / f"{top}.py").is_file() for path in self._paths):
            raise ConfigError(f"{what}: there is no module '{top}' in that directory")
        module = _import(module_name, what)
        file = Path(getattr(module, "__file__", None) or "built-in")
        if not any(file.resolve().is_relative_to(path) for path in self._paths):
            raise ConfigError(f"{what}: a module '{module_name}' is there already ({file}); give yours another name")
        return ForeignType(_attribute(module, class_name, what), type_, str(file), self._metrics, self.guards.append)


def _origin(entry: EntryPoint) -> str:
    package = f"{entry.dist.name} {entry.dist.version}: " if entry.dist is not None else ""
    return f"{package}{entry.value}"


def _import(module: str, what: str) -> Any:
    try:
        return importlib.import_module(module)
    except (Exception, SystemExit) as error:
        raise ConfigError(f"{what}: cannot import '{module}': {last_line(error)}") from error


def _attribute(holder: Any, name: str, what: str) -> Any:
    try:
        return getattr(holder, name)
    except AttributeError:
        raise ConfigError(f"{what}: no '{name}' in {holder.__name__}{nearest(name, [n for n in vars(holder) if n[:1] != '_'])}") from None
