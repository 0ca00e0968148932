"""grpc.health.v1: ready or not, whatever service is asked for (contract section 8, no leader election)."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import grpc
from grpc_health.v1 import health_pb2

_SERVICE = "grpc.health.v1.Health"
EXT_PROC = "envoy.service.ext_proc.v3.ExternalProcessor"
_LISTED = ("", EXT_PROC, "inference-extension", "liveness", "readiness")


class Readiness:
    """Whether the picker wants traffic. Written by the runner; health streams hear of changes."""

    def __init__(self) -> None:
        self._reasons: dict[str, str] = {}
        self._changed = asyncio.Event()

    @property
    def ready(self) -> bool:
        """No reason against it."""
        return not self._reasons

    @property
    def reasons(self) -> dict[str, str]:
        """Why not, by topic."""
        return dict(self._reasons)

    def block(self, topic: str, reason: str) -> None:
        """Not ready, because of `topic`."""
        self._update(topic, reason)

    def clear(self, topic: str) -> None:
        """`topic` is no longer in the way."""
        self._update(topic, None)

    def _update(self, topic: str, reason: str | None) -> None:
        before = self.ready
        if reason is None:
            self._reasons.pop(topic, None)
        else:
            self._reasons[topic] = reason
        if before != self.ready:
            changed, self._changed = self._changed, asyncio.Event()
            changed.set()

    @property
    def change(self) -> asyncio.Event:
        """Set when `ready` changes the next time. To miss nothing, take it before looking at `ready`."""
        return self._changed


def checked(readiness: Readiness) -> Any:
    """A HealthCheckResponse."""
    status = health_pb2.HealthCheckResponse.SERVING if readiness.ready else health_pb2.HealthCheckResponse.NOT_SERVING
    return health_pb2.HealthCheckResponse(status=status)


def listed(readiness: Readiness) -> Any:
    """A HealthListResponse with the names that proxies and probes use."""
    return health_pb2.HealthListResponse(statuses={name: checked(readiness) for name in _LISTED})


class HealthService(grpc.GenericRpcHandler):
    """Check, List and Watch."""

    def __init__(self, readiness: Readiness) -> None:
        self._readiness = readiness
        request, response = health_pb2.HealthCheckRequest, health_pb2.HealthCheckResponse
        listing, names = health_pb2.HealthListRequest, health_pb2.HealthListResponse
        self._methods = {
            f"/{_SERVICE}/Check": grpc.unary_unary_rpc_method_handler(self._check, request.FromString, response.SerializeToString),
            f"/{_SERVICE}/Watch": grpc.unary_stream_rpc_method_handler(self._watch, request.FromString, response.SerializeToString),
            f"/{_SERVICE}/List": grpc.unary_unary_rpc_method_handler(self._list, listing.FromString, names.SerializeToString),
        }

    def service(self, handler_call_details: grpc.HandlerCallDetails) -> grpc.RpcMethodHandler[Any, Any] | None:
        """For grpcio."""
        return self._methods.get(handler_call_details.method)

    async def _check(self, request: Any, context: grpc.aio.ServicerContext[Any, Any]) -> Any:
        return checked(self._readiness)

    async def _list(self, request: Any, context: grpc.aio.ServicerContext[Any, Any]) -> Any:
        return listed(self._readiness)

    async def _watch(self, request: Any, context: grpc.aio.ServicerContext[Any, Any]) -> AsyncIterator[Any]:
        while True:
            change = self._readiness.change
            yield checked(self._readiness)
            await change.wait()
