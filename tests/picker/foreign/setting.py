"""Guards with a clock that is moved by hand, and pickers with plugins of a test's own."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec

from picker.foreign.guard import Guard
from picker.foreign.make import ForeignType
from picker.metrics import Metrics
from tests.picker.scheduling.pool import FakeHandle
from tests.support.prometheus import Page


class Workshop:
    """Builds guarded plugins."""

    def __init__(self) -> None:
        self.metrics = Metrics()
        self.guards: list[Guard] = []
        self.now_s = 1000.0

    def make(self, cls: type[Any], parameters: dict[str, Any] | None = None, *, type_: str = "test", name: str = "it") -> Any:
        """As the registry does; its guard looks at `now_s`."""
        foreign = ForeignType(cls, type_, "a test", self.metrics, self.guards.append, clock=lambda: self.now_s)
        return foreign(name, msgspec.convert(parameters or {}, foreign.Parameters), FakeHandle())

    def errors(self) -> dict[tuple[str, str], float]:
        """Those that were counted, by extension point and kind."""
        found = Page(self.metrics.registry).find("fairlead_plugin_errors_total")
        return {(s.labels["extension_point"], s.labels["kind"]): s.value for s in found if s.value}

    def taken_out(self) -> list[str]:
        """Extension points."""
        return [point for guard in self.guards for point in guard.taken_out]


def plugin(method: str, does: Callable[..., Any], **attributes: Any) -> type[Any]:
    """A class with one method, that calls `does` with what it is given."""
    arguments = {"score": 2, "filter": 2, "screen": 2, "pick": 3, "admit": 3, "parse": 3, "produce": 2, "request_header": 1}[method]
    names = ", ".join("abc"[:arguments])
    space: dict[str, Any] = {"does": staticmethod(does)}
    exec(f"def {method}(self, {names}): return self.does({names})", space)
    return type("Made", (), {method: space[method], "does": staticmethod(does), **attributes})


def boom(*_: Any) -> Any:
    raise KeyError("of the plugin")
