"""Takes one extension point of a plugin out of use after repeated failures, and tries it again later."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

from picker.metrics import Metrics

log = logging.getLogger(__name__)

STRIKES = 5.0
"""A bad call is one strike, a good one takes a tenth of one back: more than one bad call in eleven adds up to this, sooner or later."""
FORGIVEN = 0.1
FIRST_PAUSE_S = 10.0
LONGEST_PAUSE_S = 300.0
LOG_EVERY_S = 10.0
"""Of one extension point of one plugin, at most, except for the line that tells that it was taken out. What is left out is counted."""


class Breaker:
    """Closed: the plugin is called. Open: it is not, until a pause is over; then one call decides. Each time in a row it opens the pause
    is twice as long, from 10 s to 5 minutes. `clock` is monotonic seconds."""

    __slots__ = (
        "_clock",
        "_errors",
        "_last_log_s",
        "_pause_s",
        "_retry_s",
        "_unlogged",
        "labels",
        "last_error",
        "open",
        "strikes",
    )

    def __init__(self, metrics: Metrics, type_: str, name: str, point: str, clock: Callable[[], float]) -> None:
        self.open = False
        self.strikes = 0.0
        self.last_error = ""
        self.labels = (type_, name, point)
        self._errors = {kind: metrics.plugin_errors.cell(*self.labels, kind) for kind in ("raised", "invalid", "slow")}
        self._clock = clock
        self._pause_s = FIRST_PAUSE_S
        self._retry_s = 0.0
        self._last_log_s = float("-inf")
        self._unlogged = 0

    def may_try(self) -> bool:
        """While open: whether the next call is the trial. Saying yes begins another pause, so that there is one trial at a time."""
        now_s = self._clock()
        if now_s < self._retry_s:
            return False
        self._retry_s = now_s + self._pause_s
        return True

    def good(self) -> None:
        """A call went well. After a trial the plugin is in use again, on probation: the next bad call takes it out once more."""
        if self.open:
            self.open = False
            self.strikes = STRIKES - 1.0
            log.warning("plugin %s (%s) %s: in use again", self.labels[1], self.labels[0], self.labels[2])
            return
        self.strikes = max(0.0, self.strikes - FORGIVEN)
        if not self.strikes:
            self._pause_s, self._retry_s = FIRST_PAUSE_S, 0.0

    def bad(self, kind: str, text: str, error: BaseException | None = None, *, strike: bool = True) -> None:
        """A call went wrong: `kind` is raised, invalid or slow. Without `strike` it is only counted."""
        self._errors[kind].value += 1
        self.last_error = text
        taken_out = False
        if strike:
            if not self.open:
                self.strikes += 1.0
            taken_out = self.strikes >= STRIKES
            if taken_out:
                self._take_out()
        self._log(text, error, now=taken_out)

    def _take_out(self) -> None:
        if self._retry_s:  # not for the first time since it was last forgiven everything
            self._pause_s = min(2 * self._pause_s, LONGEST_PAUSE_S)
        self.open = True
        self._retry_s = self._clock() + self._pause_s

    def _log(self, text: str, error: BaseException | None, *, now: bool) -> None:
        now_s = self._clock()
        if not now and now_s - self._last_log_s < LOG_EVERY_S:
            self._unlogged += 1
            return
        type_, name, point = self.labels
        more = f"; {self._unlogged} more since the last such line" if self._unlogged else ""
        out = f"; taken out, next try in {self._pause_s:g} s" if self.open else ""
        log.error("plugin %s (%s) %s: %s%s%s", name, type_, point, text, more, out, exc_info=error)
        self._last_log_s = now_s
        self._unlogged = 0

    def state(self) -> dict[str, Any]:
        """JSON-ready."""
        return {
            "extension_point": self.labels[2],
            "state": "taken out" if self.open else "in use",
            "strikes": round(self.strikes, 1),
            "retry_in_s": round(max(0.0, self._retry_s - self._clock()), 3) if self.open else None,
            "errors": {kind: int(cell.value) for kind, cell in self._errors.items()},
            "last_error": self.last_error or None,
        }
