"""Which methods make a class a plugin, and whether a foreign class has them as they must be."""

from __future__ import annotations

import difflib
import inspect
from collections.abc import Collection
from typing import Any, NamedTuple

import msgspec

from picker.errors import ConfigError


class Point(NamedTuple):
    """An extension point: its name in metrics, how many arguments its method is called with, and whether a Refusal is an answer of it."""

    name: str
    arguments: int
    refuses: bool = False


POINTS: dict[str, Point] = {
    "request_header": Point("RequestHeaderProcessor", 1, refuses=True),
    "parse": Point("Parser", 3, refuses=True),
    "saturation": Point("SaturationDetector", 2),
    "key": Point("OrderingPolicy", 1),
    "queue": Point("FairnessPolicy", 0),
    "dispatched": Point("FairnessPolicy", 3),
    "ceilings": Point("UsageLimitPolicy", 2),
    "evictable": Point("EvictionFilter", 1),
    "eviction_key": Point("EvictionOrdering", 2),
    "prepare": Point("AsyncDataProducer", 1),
    "screen": Point("Screener", 2, refuses=True),
    "produce": Point("DataProducer", 2),
    "admit": Point("Admitter", 3, refuses=True),
    "profiles": Point("ProfileHandler", 2),
    "primary": Point("ProfileHandler", 1),
    "filter": Point("Filter", 2, refuses=True),
    "score": Point("Scorer", 2),
    "pick": Point("Picker", 3),
    "pre_request": Point("PreRequest", 3),
    "response_header": Point("ResponseHeaderProcessor", 2),
    "response_started": Point("ResponseStartObserver", 2),
    "response_complete": Point("ResponseObserver", 2),
    "endpoint_removed": Point("EndpointWatcher", 2),
    "fetch": Point("DataSource", 1),
    "extract": Point("Extractor", 2),
    "endpoint_event": Point("EndpointEventExtractor", 2),
}
"""By method, in the order in which a request meets them; then those of the data layer."""

_PAIRS = (
    ("profiles", "primary", "a profile handler needs both"),
    ("primary", "profiles", "a profile handler needs both"),
    ("dispatched", "queue", "it is for fairness policies"),
)
_ASYNC = frozenset({"prepare", "fetch"})


def methods(cls: type[Any]) -> list[str]:
    """The extension points' methods that a class has."""
    return [method for method in POINTS if callable(getattr(cls, method, None))]


def check(cls: Any, what: str) -> None:
    """Raises ConfigError that begins with `what` when the class cannot be a plugin."""
    if not inspect.isclass(cls):
        raise ConfigError(f"{what} is a {type(cls).__name__}; name a class, e.g. 'my_package.my_module:MyScorer'")
    found = methods(cls)
    if not found:
        raise ConfigError(f"{what} has none of the methods that make a plugin{_nearest(cls)}")
    for method in found:
        _check_method(cls, method, what)
    for one, other, why in _PAIRS:
        if one in found and other not in found:
            raise ConfigError(f"{what} has '{one}' and lacks '{other}': {why}")
    if "fetch" in found and hasattr(cls, "close") and not inspect.iscoroutinefunction(cls.close):
        raise ConfigError(f"{what}: 'close' of a data source must be declared with 'async def'")
    if "parse" in found and not _texts(getattr(cls, "paths", None)):
        raise ConfigError(f"{what} lacks 'paths': a parser needs the suffixes of the paths it reads, e.g. paths = ('/v1/rank',)")
    timeout_s = getattr(cls, "timeout_s", None)
    if "prepare" in found and (isinstance(timeout_s, bool) or not isinstance(timeout_s, int | float) or not 0 < timeout_s < float("inf")):
        raise ConfigError(f"{what} lacks 'timeout_s': for how many seconds may a request wait for its prepare()? e.g. timeout_s = 0.1")
    for keys in ("produces", "consumes", "optional"):
        if not _texts(getattr(cls, keys, frozenset())):
            raise ConfigError(f"{what}: '{keys}' must be a set of strings, the keys of request.working or request.attributes")
    parameters = getattr(cls, "Parameters", None)
    if parameters is not None and not (inspect.isclass(parameters) and issubclass(parameters, msgspec.Struct)):
        raise ConfigError(f"{what}: 'Parameters' must be a class made from fairlead.plugin.Parameters")
    if has_constructor(cls) and not _takes(cls.__init__, 4):
        raise ConfigError(f"{what}: __init__ must take (self, name, parameters, handle); leave it out when it has nothing to do")
    if not has_constructor(cls) and inspect.isabstract(cls):
        missing = ", ".join(sorted(getattr(cls, "__abstractmethods__", ())))
        raise ConfigError(f"{what} is abstract: {missing} not implemented")


def has_constructor(cls: type[Any]) -> bool:
    """Whether it has an `__init__` of its own (that of a Protocol it was made from is none)."""
    return cls.__init__ is not object.__init__ and cls.__init__.__name__ != "_no_init_or_replace_init"


def _check_method(cls: type[Any], method: str, what: str) -> None:
    function = getattr(cls, method)
    point = POINTS[method]
    if isinstance(inspect.getattr_static(cls, method), staticmethod | classmethod):
        raise ConfigError(f"{what}: '{method}' must be a plain method, no staticmethod or classmethod")
    if not _takes(function, point.arguments + 1):
        raise ConfigError(f"{what}: '{method}' is called with {point.arguments} arguments after self (see {point.name} in fairlead.plugin)")
    waits = inspect.iscoroutinefunction(function) or inspect.isasyncgenfunction(function)
    if waits and method not in _ASYNC:
        raise ConfigError(f"{what}: '{method}' must be a plain function: scheduling does not wait. What must wait belongs in prepare()")
    if not waits and method in _ASYNC:
        raise ConfigError(f"{what}: '{method}' must be declared with 'async def'")


def _takes(function: Any, count: int) -> bool:
    try:
        inspect.signature(function).bind(*[None] * count)
    except TypeError:
        return False
    except ValueError:  # built in C: it tells no signature
        return True
    return True


def _texts(value: object) -> bool:
    return isinstance(value, Collection) and not isinstance(value, str | bytes) and all(isinstance(v, str) for v in value)


def _nearest(cls: type[Any]) -> str:
    for name in vars(cls):
        near = difflib.get_close_matches(name, POINTS, n=1, cutoff=0.7)
        if near and not name.startswith("_"):
            return f"; is '{name}' meant to be '{near[0]}'?"
    return f": {', '.join(POINTS)}"
