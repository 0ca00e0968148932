"""From a foreign class to what the registry builds: checked, its parameters and those of its guard decoded, its methods guarded."""

from __future__ import annotations

import traceback
import types
from collections.abc import Callable
from time import perf_counter
from typing import Any

import msgspec

from picker.errors import ConfigError
from picker.foreign.guard import Clock, Guard, GuardParameters, own_parameters
from picker.foreign.points import check, has_constructor, methods
from picker.metrics import Metrics
from picker.plugin import Handle


class ForeignType:
    """Stands for a plugin class in the registry, which calls it as it would call the class."""

    def __init__(
        self, cls: type[Any], type_: str, origin: str, metrics: Metrics, keep: Callable[[Guard], None], *, clock: Clock = perf_counter
    ) -> None:
        """`keep` is told the guard of each plugin that is made. Raises ConfigError when the class cannot be a plugin."""
        what = f"plugin type '{type_}' ({origin})"
        check(cls, what)
        self.type = type_
        self.origin = origin
        self.methods = methods(cls)
        self.experimental = bool(getattr(cls, "experimental", False))
        self.__module__, self.__qualname__ = cls.__module__, cls.__qualname__
        self._cls = cls
        self._what = what
        self._metrics = metrics
        self._keep = keep
        self._clock = clock
        self._own = own_parameters(cls)
        if "guard" in {field.encode_name for field in msgspec.structs.fields(self._own)}:
            raise ConfigError(f"{what}: a parameter must not be called 'guard'; that name is for the limits of foreign plugins")
        self.Parameters = msgspec.defstruct(
            self._own.__name__,
            [("guard", GuardParameters, msgspec.field(default=GuardParameters()))],
            bases=(self._own,),
            module=self._own.__module__,
            frozen=self._own.__struct_config__.frozen,
            forbid_unknown_fields=True,
            kw_only=True,
        )

    def __call__(self, name: str, parameters: Any, handle: Handle) -> Any:
        """The plugin. Raises ConfigError when its constructor fails, ValueError when that finds a parameter wrong."""
        limits: GuardParameters = parameters.guard
        if limits.on_error != "refuse" and "admit" not in self.methods:
            raise ValueError("guard.onError is for plugins with an admit() method")
        guard = Guard(self._metrics, self.type, name, self.origin, limits, self._clock)
        cls = self._guarded(guard, name, parameters)
        try:
            plugin = cls(name, parameters, handle) if has_constructor(self._cls) else cls()
        except (ConfigError, ValueError):
            raise
        except Exception as error:
            raise ConfigError(f"{self._what}: its constructor failed: {last_line(error)}") from error
        if "fetch" in self.methods and not _seconds(getattr(plugin, "interval_s", None)):
            raise ConfigError(
                f"{self._what} lacks 'interval_s': how many seconds are there from one fetch() to the next? e.g. interval_s = 5.0"
            )
        self._keep(guard)
        return plugin

    def _guarded(self, guard: Guard, name: str, parameters: Any) -> type[Any]:
        """A class of its own for each plugin, made from the author's: what asks for the methods of an extension point, or for the
        author's class, finds it, and cannot pass by the guard."""
        base = self._cls
        body: dict[str, Any] = {
            "type": self.type,
            "name": name,
            "parameters": parameters,
            "bounded": True,  # the guard has looked at every score
            "__module__": base.__module__,
            "__doc__": base.__doc__,
            **guard.over(base),
        }
        if "produce" in body or "prepare" in body:
            body["produces"] = frozenset(getattr(base, "produces", ()))
            body["consumes"] = frozenset(getattr(base, "consumes", ()))
        if "fetch" in body and not hasattr(base, "close"):
            body["close"] = _nothing_to_close
        made: type[Any] = types.new_class(base.__name__, (base,), {}, lambda namespace: namespace.update(body))
        return made


async def _nothing_to_close(plugin: Any) -> None:
    """Of a data source that keeps nothing open."""


def _seconds(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and 0 < value < float("inf")


def last_line(error: BaseException) -> str:
    """What was raised, and in which line."""
    text = traceback.format_exception_only(error)[-1].strip()
    frames = traceback.extract_tb(error.__traceback__)
    return f"{text} ({frames[-1].filename}:{frames[-1].lineno})" if frames else text
