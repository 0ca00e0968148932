"""A token bucket: how much of something useless a peer may send before it is shown the door."""

from __future__ import annotations

from picker.extproc.h2.errors import ConnectionFault, ErrorCode


class Bucket:
    """`burst` tokens at first and at most, `per_s` more each second."""

    __slots__ = ("_burst", "_per_s", "_tokens", "_updated_s", "_what")

    def __init__(self, what: str, burst: int, per_s: int, now_s: float) -> None:
        self._what = what
        self._burst = burst
        self._per_s = per_s
        self._tokens: float = burst
        self._updated_s = now_s

    def spend(self, now_s: float) -> None:
        """One token. Raises ConnectionFault (ENHANCE_YOUR_CALM) when there is none."""
        if self._tokens < 1:
            self.refill(now_s)
            if self._tokens < 1:
                raise ConnectionFault(ErrorCode.ENHANCE_YOUR_CALM, f"too many {self._what}")
        self._tokens -= 1

    def earn(self) -> None:
        """One token back, for something useful."""
        if self._tokens < self._burst:
            self._tokens += 1

    def refill(self, now_s: float) -> None:
        """Called now and then; in between the tokens at hand are enough, or `spend` looks at the time itself."""
        self._tokens = min(self._burst, self._tokens + (now_s - self._updated_s) * self._per_s)
        self._updated_s = now_s
