"""In which order data producers run: each after those that produce what it consumes (`produces` and `consumes` of plugins)."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from picker.errors import ConfigError
from picker.keys import ABSENT_PRODUCERS, DEFAULT_PRODUCERS
from picker.plugin import AsyncDataProducer, DataProducer
from picker.registry import nearest

log = logging.getLogger(__name__)


def missing_defaults(plugins: Sequence[Any]) -> list[str]:
    """The types that make what some plugin consumes and none produces."""
    produced = _producers(plugins)
    wanted = {key for plugin in plugins for key in consumed(plugin)}
    return [DEFAULT_PRODUCERS[key] for key in sorted(wanted & DEFAULT_PRODUCERS.keys()) if key not in produced]


def consumed(plugin: Any) -> Sequence[str]:
    """Sorted, so that what is said of them is the same each time."""
    return sorted(getattr(plugin, "consumes", ()))


def in_order(plugins: Sequence[Any], where: Callable[[str], str]) -> list[Any]:
    """The plugins in their order, but each behind those that produce what it consumes.

    `where` puts the name of a plugin into its place in the configuration. Raises ConfigError for a cycle, for a key that nobody produces
    (those in `optional` are only warned of), and for a producer that would have to run before what it needs.
    """
    producers = _producers(plugins)
    for plugin in plugins:
        _check(plugin, producers, where)
    return _Sorting(plugins, producers, where).result


def _producers(plugins: Sequence[Any]) -> Mapping[str, Sequence[Any]]:
    found: dict[str, list[Any]] = {}
    for plugin in plugins:
        for key in getattr(plugin, "produces", ()):
            found.setdefault(key, []).append(plugin)
    return found


def _check(plugin: Any, producers: Mapping[str, Sequence[Any]], where: Callable[[str], str]) -> None:
    called = f"{where(plugin.name)}: '{plugin.name}' ({plugin.type})"
    for key in consumed(plugin):
        if key not in producers:
            what = f"{called} consumes '{key}', which no plugin produces"
            if key not in getattr(plugin, "optional", ()):
                hint = ABSENT_PRODUCERS.get(key)
                raise ConfigError(f"{what}: {hint}" if hint else f"{what}{nearest(key, sorted(producers))}")
            log.warning("%s; it goes on without", what)
        elif isinstance(plugin, AsyncDataProducer) and not isinstance(plugin, DataProducer):
            late: list[Any] = [p for p in producers[key] if isinstance(p, DataProducer) and not isinstance(p, AsyncDataProducer)]
            if len(late) == len(producers[key]):
                raise ConfigError(
                    f"{called} consumes '{key}' before endpoints are looked at, and "
                    f"'{late[0].name}' ({late[0].type}) produces it afterwards"
                )


class _Sorting:
    """Depth first, so that nothing is moved that need not be."""

    def __init__(self, plugins: Sequence[Any], producers: Mapping[str, Sequence[Any]], where: Callable[[str], str]) -> None:
        self.result: list[Any] = []
        self._producers = producers
        self._where = where
        self._done: set[int] = set()
        self._path: list[Any] = []
        for plugin in plugins:
            self._visit(plugin)

    def _visit(self, plugin: Any) -> None:
        if id(plugin) in self._done:
            return
        if any(plugin is p for p in self._path):
            start = next(i for i, p in enumerate(self._path) if p is plugin)
            names = " -> ".join(p.name for p in [*self._path[start:], plugin])
            raise ConfigError(f"{self._where(plugin.name)}: data producers wait for each other: {names} (consumes -> produces)")
        self._path.append(plugin)
        for key in consumed(plugin):
            others = [p for p in self._producers.get(key, ()) if p is not plugin]
            # One that adds to what another one has produced does not wait for itself; one that waits for nobody else does.
            for producer in others or self._producers.get(key, ()):
                self._visit(producer)
        self._path.pop()
        self._done.add(id(plugin))
        self.result.append(plugin)
