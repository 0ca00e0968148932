"""grpc.health.v1 on this server: Check and List answer at once, Watch whenever readiness changes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from google.protobuf.message import DecodeError
from grpc_health.v1 import health_pb2

from picker.extproc.h2.call import Method, Responder
from picker.extproc.h2.status import Status, StatusError
from picker.extproc.health import Readiness, checked, listed
from picker.tasks import TaskOwner

_SERVICE = b"/grpc.health.v1.Health/"


class HealthCalls:
    """One per server. A single task follows readiness for all watchers; `close` ends it."""

    def __init__(self, readiness: Readiness) -> None:
        self._readiness = readiness
        self._watchers: dict[_Watch, None] = {}
        self._tasks = TaskOwner()
        self._following = False
        self.methods: dict[bytes, Method] = {
            _SERVICE + b"Check": lambda _: _Unary(health_pb2.HealthCheckRequest, self.status),
            _SERVICE + b"List": lambda _: _Unary(health_pb2.HealthListRequest, self._list),
            _SERVICE + b"Watch": self._watch,
        }

    def status(self) -> Any:
        """A HealthCheckResponse: ready or not, whatever service is asked for."""
        return checked(self._readiness)

    def _list(self) -> Any:
        return listed(self._readiness)

    def _watch(self, responder: Responder) -> _Watch:
        return _Watch(self, responder)

    def join(self, watcher: _Watch) -> None:
        """From now on `watcher` hears of changes."""
        self._watchers[watcher] = None
        if not self._following:
            self._following = True
            self._tasks.spawn(self._follow(), "health watchers")

    def leave(self, watcher: _Watch) -> None:
        """No more."""
        self._watchers.pop(watcher, None)

    async def _follow(self) -> None:
        change = self._readiness.change
        while True:
            await change.wait()
            change = self._readiness.change
            for watcher in list(self._watchers):
                watcher.tell()

    def dismiss(self) -> None:
        """End all watches: this port takes no more calls."""
        for watcher in list(self._watchers):
            watcher.dismiss()

    async def close(self) -> None:
        """No watcher hears of anything any more."""
        await self._tasks.close("the health service stops")


class _Unary:
    """One request, one answer."""

    __slots__ = ("_answer", "_request", "finished")

    def __init__(self, request: Any, answer: Any) -> None:
        self._request = request
        self._answer = answer
        self.finished = False

    def message(self, data: bytes) -> Sequence[bytes]:
        """The answer. Raises StatusError when the request cannot be read."""
        _decoded(self._request, data)
        self.finished = True
        return (self._answer().SerializeToString(),)

    def half_closed(self) -> bool:
        """Raises StatusError: there must be one request."""
        raise StatusError(Status.INTERNAL, "the stream ends without a request")

    def end(self, status: Status) -> None:
        """Nothing to settle."""


class _Watch:
    """Answers again and again, until the client leaves."""

    __slots__ = ("_calls", "_responder", "_told", "finished")

    def __init__(self, calls: HealthCalls, responder: Responder) -> None:
        self._calls = calls
        self._responder = responder
        self._told: bytes | None = None
        self.finished = False

    def message(self, data: bytes) -> Sequence[bytes]:
        """Raises StatusError when the request cannot be read, or is the second one."""
        if self._told is not None:
            raise StatusError(Status.INTERNAL, "a second request")
        _decoded(health_pb2.HealthCheckRequest, data)
        self._told = self._calls.status().SerializeToString()
        self._calls.join(self)
        return (self._told,)

    def tell(self) -> None:
        """Send the status when it is another one."""
        now = self._calls.status().SerializeToString()
        if now != self._told:
            self._told = now
            self._responder.send(now)

    def dismiss(self) -> None:
        """End the call."""
        self._responder.finish(Status.UNAVAILABLE, "shutting down")

    def half_closed(self) -> bool:
        """The client goes on listening. Raises StatusError without a request."""
        if self._told is None:
            raise StatusError(Status.INTERNAL, "the stream ends without a request")
        return False

    def end(self, status: Status) -> None:
        """No more news."""
        self._calls.leave(self)


def _decoded(kind: Any, data: bytes) -> Any:
    try:
        return kind.FromString(data)
    except DecodeError:
        raise StatusError(Status.INTERNAL, "the request cannot be decoded") from None
