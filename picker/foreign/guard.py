"""Stands between a request and a foreign plugin: whatever the plugin does, the stage gets something it can use.

What takes the place of an answer is chosen so that a request is served, and no protection is switched off unseen: a request that a broken
Admitter did not look at is refused, unless the operator chose otherwise. A call cannot be interrupted: one that is slow is counted, and
the plugin is taken out when that happens repeatedly.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection, Mapping, Sequence
from math import inf
from time import perf_counter
from typing import Annotated, Any, Literal, NoReturn

import msgspec

from picker.endpoint import Endpoint
from picker.errors import Internal, Refusal
from picker.foreign import verdicts
from picker.foreign.breaker import Breaker
from picker.foreign.fair_queue import GuardedFairQueue
from picker.foreign.points import POINTS, methods
from picker.foreign.verdicts import Invalid
from picker.metrics import Metrics
from picker.plugin import NoParameters, Parameters
from picker.request import InferenceRequest
from picker.scheduling.pickers import MaxScorePicker, PickerParameters
from picker.snapshot import Candidates

Clock = Callable[[], float]


class GuardParameters(Parameters, frozen=True):
    """Of every foreign plugin, under `guard` among its own parameters.

    `callBudgetMs`: a call that takes longer is slow. `onError`: what becomes of a request that an Admitter failed to look at.
    """

    call_budget_ms: Annotated[float, msgspec.Meta(gt=0)] = 5.0
    on_error: Literal["refuse", "admit"] = "refuse"


class Guard:
    """The breakers of one plugin. `origin` says where its class comes from."""

    def __init__(
        self, metrics: Metrics, type_: str, name: str, origin: str, parameters: GuardParameters, clock: Clock = perf_counter
    ) -> None:
        self.type = type_
        self.name = name
        self.origin = origin
        self._metrics = metrics
        self._clock = clock
        self._budget_s = parameters.call_budget_ms / 1e3
        self._admit_on_error = parameters.on_error == "admit"
        self._max_score = MaxScorePicker(MaxScorePicker.type, PickerParameters(), _NoHandle())
        self._breakers: dict[str, Breaker] = {}

    def over(self, cls: type[Any]) -> dict[str, Any]:
        """The methods of extension points of a class, by name, each with this guard around it."""
        found = {method: getattr(cls, method) for method in methods(cls)}
        around = {"prepare": self._async, "fetch": self._fetch, "queue": self._queue}
        return {name: around.get(name, self._sync)(name, method) for name, method in found.items()}

    @property
    def taken_out(self) -> list[str]:
        """Extension points at which the plugin is not called at present."""
        return [point for point, breaker in self._breakers.items() if breaker.open]

    @property
    def breakers(self) -> Collection[Breaker]:
        """One for each extension point."""
        return self._breakers.values()

    def state(self) -> dict[str, Any]:
        """JSON-ready."""
        points = [breaker.state() for breaker in self._breakers.values()]
        return {"name": self.name, "type": self.type, "from": self.origin, "extension_points": points}

    def _breaker(self, method: str) -> Breaker:
        point = POINTS[method].name
        if point not in self._breakers:
            self._breakers[point] = Breaker(self._metrics, self.type, self.name, point, self._clock)
        return self._breakers[point]

    def _sync(self, name: str, method: Callable[..., Any]) -> Callable[..., Any]:
        breaker, check, instead = self._breaker(name), _CHECKS.get(name), self._instead(name)
        clock, budget_s = self._clock, self._budget_s
        # To refuse requests because their check is slow would be worse than slow; a watcher that misses a call keeps what is gone for good.
        always = name in ("endpoint_removed", "endpoint_event")
        dropped_when_slow = name not in ("admit", "parse") and not always
        tells = name in ("extract", "endpoint_event")  # the data layer counts failures of its own, and what is known stays
        answers: tuple[type[BaseException], ...] = (Refusal,) if POINTS[name].refuses else ()

        def call(plugin: Any, *args: Any) -> Any:
            if breaker.open and not breaker.may_try() and not always:
                return instead(*args)
            started = clock()
            try:
                answer = method(plugin, *args)
                if check is not None:
                    answer = check(answer, *args)
            except answers:
                if breaker.open or breaker.strikes:
                    breaker.good()
                raise
            except Invalid as invalid:
                breaker.bad("invalid", f"{name}() returned {invalid}")
                if tells:
                    raise
                return instead(*args) if invalid.instead is None else invalid.instead
            except (Exception, SystemExit) as error:
                breaker.bad("raised", f"{name}() raised {type(error).__name__}: {error!s:.200}", error)
                if tells:
                    raise RuntimeError(f"{name}() raised {type(error).__name__}: {error!s:.200}") from error
                return instead(*args)
            took_s = clock() - started
            if took_s > budget_s:
                breaker.bad("slow", f"{name}() took {took_s * 1e3:.1f} ms, more than {budget_s * 1e3:g}", strike=dropped_when_slow)
                if breaker.open and not dropped_when_slow:
                    breaker.good()
            elif breaker.open or breaker.strikes:
                breaker.good()
            return answer

        call.__name__, call.__doc__ = name, method.__doc__
        return call

    def _async(self, name: str, method: Callable[..., Any]) -> Callable[..., Any]:
        breaker = self._breaker(name)

        async def call(plugin: Any, request: InferenceRequest) -> None:
            if breaker.open and not breaker.may_try():
                return
            try:
                await method(plugin, request)
            except asyncio.CancelledError:
                # Its time is up, or the request is gone; whoever gave it the time counts that.
                raise
            except (Exception, SystemExit) as error:
                breaker.bad("raised", f"{name}() raised {type(error).__name__}: {error!s:.200}", error)
            else:
                if breaker.open or breaker.strikes:
                    breaker.good()

        call.__name__, call.__doc__ = name, method.__doc__
        return call

    def _queue(self, name: str, method: Callable[..., Any]) -> Callable[..., Any]:
        breaker, clock, budget_s = self._breaker(name), self._clock, self._budget_s

        def call(plugin: Any) -> GuardedFairQueue:
            return GuardedFairQueue(lambda: method(plugin), breaker, clock, budget_s)

        call.__name__, call.__doc__ = name, method.__doc__
        return call

    def _fetch(self, name: str, method: Callable[..., Any]) -> Callable[..., Any]:
        """Whatever it raises is a failed poll: the endpoint may be down, which is no fault of the plugin. Never taken out: the poller has
        pauses of its own."""
        breaker = self._breaker(name)

        async def call(plugin: Any, endpoint: Endpoint) -> bytes:
            try:
                body = await method(plugin, endpoint)
            except SystemExit as error:
                raise RuntimeError(f"{name}() raised SystemExit: {error}") from error
            if not isinstance(body, bytes):
                text = f"{name}() returned a {type(body).__name__}; expected bytes"
                breaker.bad("invalid", text, strike=False)
                raise TypeError(text)
            return body

        call.__name__, call.__doc__ = name, method.__doc__
        return call

    def _instead(self, name: str) -> Callable[..., Any]:
        """What takes the place of an answer."""
        if name == "admit":
            return _nothing if self._admit_on_error else self._unchecked
        instead: dict[str, Callable[..., Any]] = {
            "parse": self._unread,
            "screen": _all,
            "filter": _all,
            "score": _zeros,
            "pick": self._max_score.pick,
            "profiles": _first_profile,
            "primary": _first_result,
            "saturation": _full,
            "key": _last,
            "ceilings": _open_to_all,
            "evictable": _no,
            "eviction_key": _last_to_go,
        }
        return instead.get(name, _nothing)

    def _unchecked(self, *_: object) -> NoReturn:
        raise Internal(f"admission plugin '{self.name}' failed: the request could not be checked, and is refused")

    def _unread(self, *_: object) -> NoReturn:
        raise Internal(f"parser plugin '{self.name}' failed to read the request body")


class _NoHandle:
    def plugin(self, name: str, fallback_type: str) -> NoReturn:
        raise LookupError(name)


_CHECKS: Mapping[str, Callable[..., Any]] = {
    "parse": verdicts.parsed,
    "saturation": verdicts.fullness,
    "key": verdicts.order_key,
    "ceilings": verdicts.ceilings,
    "evictable": verdicts.truth,
    "eviction_key": verdicts.order_key,
    "extract": verdicts.extracted,
    "endpoint_event": verdicts.extracted,
    "screen": verdicts.kept,
    "filter": verdicts.kept,
    "score": verdicts.scores,
    "pick": verdicts.picked,
    "profiles": verdicts.profiles,
    "primary": verdicts.primary,
    "response_header": verdicts.headers,
    "response_complete": verdicts.metadata,
}


def _nothing(*_: object) -> None:
    return None


def _all(request: InferenceRequest, candidates: Candidates) -> Candidates:
    return candidates


def _zeros(request: InferenceRequest, candidates: Candidates) -> Sequence[float]:
    return [0.0] * len(candidates)


def _first_profile(request: InferenceRequest, names: Sequence[str]) -> Sequence[str]:
    return names[:1]


def _first_result(results: Mapping[str, object]) -> str:
    return next(iter(results))


def _full(*_: object) -> float:
    """What is not known counts as full, as missing metrics do (contract section 4)."""
    return 1.0


def _last(item: object) -> tuple[float, ...]:
    """Behind those of which the plugin knew when their turn is, and in order of arrival: a request that makes it fail gains nothing."""
    return (inf,)


def _open_to_all(priorities: Sequence[int], saturation: float) -> Sequence[float]:
    """As without a policy: all are let in until the pool is full."""
    return [1.0] * len(priorities)


def _no(*_: object) -> bool:
    return False


def _last_to_go(request: InferenceRequest, opened_s: float) -> tuple[float, ...]:
    """Behind those the plugin could judge, and as fairlead's own ordering has it."""
    return (inf, request.priority, -opened_s)


def own_parameters(cls: type[Any]) -> type[msgspec.Struct]:
    """The `Parameters` of a plugin class, or none at all."""
    found: type[msgspec.Struct] = getattr(cls, "Parameters", None) or NoParameters
    return found
