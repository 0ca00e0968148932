"""From a plugin entry of the configuration to a plugin object."""

from __future__ import annotations

import difflib
import logging
import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Protocol

import msgspec

from picker.errors import ConfigError, ParameterError
from picker.naming import RENAMED, missing_feature
from picker.plugin import Handle

log = logging.getLogger(__name__)


class Foreign(Protocol):
    """Knows plugin types that do not ship with fairlead."""

    def types(self) -> Iterable[str]: ...

    def origin(self, type_: str) -> str | None:
        """Where a type of this name comes from; None when there is none."""

    def find(self, type_: str) -> Any:
        """What stands for the class; None when there is none. Raises ConfigError, without a place in the configuration."""


class Registry:
    """Plugin classes by type string. A type can be registered once."""

    def __init__(self, classes: Iterable[type[Any]]) -> None:
        self._classes: dict[str, type[Any]] = {}
        self._foreign: Foreign | None = None
        for cls in classes:
            self.add(cls)

    def add_foreign(self, foreign: Foreign) -> None:
        """Where to look for types that are not registered. Nothing is imported until a configuration names it."""
        self._foreign = foreign

    def add(self, cls: type[Any]) -> None:
        """Raises ConfigError when the type is taken by another class."""
        other = self._classes.setdefault(cls.type, cls)
        if other is not cls:
            raise ConfigError(
                f"plugin type '{cls.type}' is registered twice: "
                f"{other.__module__}.{other.__qualname__} and {cls.__module__}.{cls.__qualname__}"
            )

    def __contains__(self, type_: str) -> bool:
        return type_ in self._classes

    def __getitem__(self, type_: str) -> type[Any]:
        return self._classes[type_]

    def types(self) -> list[str]:
        """All registered types, in stage order."""
        return list(self._classes)

    def find(self, type_: str, where: Callable[[str], str], *, experimental: bool) -> Any:
        """The class of a type, whatever it is called. `where` puts a path inside the plugin's entry into words.

        Raises ConfigError for types that are unknown, not there yet, or experimental without `experimental`.
        """
        if (renamed := RENAMED.get(type_)) is not None and type_ not in self._classes:
            ages = f"deprecated since {renamed.since} and will be removed in {renamed.removed_in}"
            log.warning("%s: '%s' is %s; use %s", where("type"), type_, ages, renamed.replacement)
            type_ = renamed.replacement
        cls = self._class(type_, where)
        if cls is None:
            if (feature := missing_feature(type_)) is not None:
                raise ConfigError(f"{where('type')}: plugin type '{type_}' is not in this version: it belongs to {feature}")
            known = [*self._classes, *RENAMED, *(self._foreign.types() if self._foreign else ())]
            near = difflib.get_close_matches(type_, known, n=3, cutoff=0.4)
            hint = f"; did you mean {' or '.join(near)}?" if near else ""
            raise ConfigError(f"{where('type')}: plugin type '{type_}' is not registered{hint}")
        if getattr(cls, "experimental", False) and not experimental:
            raise ConfigError(f"{where('type')}: plugin type '{type_}' is experimental; allow it with --allow-experimental-plugins")
        return cls

    def decode(self, cls: type[Any], parameters: Mapping[str, Any] | None, where: Callable[[str], str]) -> Any:
        """The parameters as the class wants them. Raises ConfigError."""
        try:
            return msgspec.convert(parameters or {}, cls.Parameters)
        except msgspec.ValidationError as error:
            path, message = explain(error, cls.Parameters, parameters)
            raise ConfigError(f"{where(f'parameters.{path}'.rstrip('.'))}: {message}") from None

    def build(self, cls: type[Any], name: str, decoded: Any, handle: Handle, where: Callable[[str], str]) -> Any:
        """Make the plugin. Raises ConfigError when it does not like its parameters."""
        try:
            return cls(name, decoded, handle)
        except ParameterError as error:
            raise ConfigError(f"{where(f'parameters.{error.path}')}: {error}") from None
        except ValueError as error:
            raise ConfigError(f"{where('parameters')}: {error}") from None

    def _class(self, type_: str, where: Callable[[str], str]) -> Any:
        """None when there is none."""
        if self._foreign is None:
            return self._classes.get(type_)
        if type_ not in self._classes:
            try:
                return self._foreign.find(type_)
            except ConfigError as error:
                raise ConfigError(f"{where('type')}: {error}") from error
        if (origin := self._foreign.origin(type_)) is not None:
            raise ConfigError(
                f"{where('type')}: plugin type '{type_}' ships with fairlead, and {origin} has the same name: rename that one"
            )
        return self._classes[type_]


def nearest(name: str, known: Iterable[str]) -> str:
    """What to add to an error about an unknown name: the nearest valid one, or all of them."""
    names = list(known)
    near = difflib.get_close_matches(name, names, n=1, cutoff=0.5)
    return f"; did you mean '{near[0]}'?" if near else f"; known: {', '.join(names) or 'none'}"


def explain(error: msgspec.ValidationError, struct: type[msgspec.Struct], data: Any) -> tuple[str, str]:
    """A path into `data` such as `a[2].b` ('' for all of it), and msgspec's text with the nearest valid name or the value at fault."""
    text = str(error)
    path = ""
    if where := _WHERE.search(text):
        path, text = where[1], text[: where.start()]
    if unknown := _UNKNOWN.search(text):
        return f"{path}.{unknown[1]}".lstrip("."), text + nearest(unknown[1], _fields_at(struct, path))
    value = _value_at(data, path)
    return path, text if isinstance(value, Mapping | list) else f"{text}; found {_short(value)}"


_WHERE = re.compile(r" - at (?:`key` in )?`\$\.?(.*)`$", re.DOTALL)
_UNKNOWN = re.compile(r"unknown field `(.*)`", re.DOTALL)
_STEP = re.compile(r"([^.\[\]]+)|\[(\d+|\.\.\.)\]")


def _fields_at(struct: type[msgspec.Struct], path: str) -> list[str]:
    """The fields of the struct that `path` leads to, as they are written."""
    here: list[Any] = [msgspec.inspect.type_info(struct)]
    for name, _ in _STEP.findall(path):
        below = [_below(option, name) for info in here for option in getattr(info, "types", (info,))]
        here = [info for info in below if info is not None]
    options = [option for info in here for option in getattr(info, "types", (info,))]
    return [f.encode_name for option in options if isinstance(option, msgspec.inspect.StructType) for f in option.fields]


def _below(info: Any, name: str) -> Any:
    if name and isinstance(info, msgspec.inspect.StructType):
        return next((f.type for f in info.fields if f.encode_name == name), None)
    return None if name else getattr(info, "item_type", None)


def _value_at(data: Any, path: str) -> Any:
    """A mapping or list when the place cannot be found."""
    for name, index in _STEP.findall(path):
        try:
            data = data[name or int(index)]
        except (KeyError, IndexError, TypeError, ValueError):
            return []
    return data


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 80 else text[:77] + "..."
