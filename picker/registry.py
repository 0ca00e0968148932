"""From a plugin entry of the configuration to a plugin object."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping
from typing import Any

import msgspec

from picker.errors import ConfigError
from picker.plugin import Handle


class Registry:
    """Plugin classes by type string. A type can be registered once; aliases map a deprecated name to its successor."""

    def __init__(self, classes: Iterable[type[Any]]) -> None:
        self._classes: dict[str, type[Any]] = {}
        for cls in classes:
            self.add(cls)

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

    def types(self) -> list[str]:
        """All registered types, in stage order."""
        return list(self._classes)

    def build(self, type_: str, name: str, parameters: Mapping[str, Any] | None, handle: Handle, where: str) -> Any:
        """Make the plugin. `where` names the place in the configuration; raises ConfigError with it when something is wrong."""
        cls = self._classes.get(type_)
        if cls is None:
            near = difflib.get_close_matches(type_, self._classes, n=3, cutoff=0.4)
            hint = f"; did you mean {' or '.join(near)}?" if near else ""
            raise ConfigError(f"{where}: plugin type '{type_}' is not registered{hint}")
        try:
            decoded = msgspec.convert(parameters or {}, cls.Parameters)
        except msgspec.ValidationError as error:
            raise ConfigError(f"{where}.parameters: {explain(error, cls.Parameters)}") from None
        try:
            return cls(name, decoded, handle)
        except ValueError as error:
            raise ConfigError(f"{where}.parameters: {error}") from None


def explain(error: msgspec.ValidationError, struct: type[msgspec.Struct]) -> str:
    """msgspec's text, with the nearest valid name added for an unknown field of `struct` itself."""
    text = str(error)
    if "unknown field" not in text:
        return text
    unknown = text.split("`")[1]
    fields = [f.encode_name for f in msgspec.structs.fields(struct)]
    near = difflib.get_close_matches(unknown, fields, n=1, cutoff=0.5)
    if near:
        return f"{text}; did you mean '{near[0]}'?"
    return f"{text}; known: {', '.join(fields) or 'none'}"
