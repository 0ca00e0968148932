"""What the runner needs of a gRPC server, whichever it is; and what both are told."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from picker.extproc.conversation import Conversation
from picker.extproc.events import Deliver
from picker.extproc.health import Readiness
from picker.metrics import Metrics


class Transport(Protocol):
    """Serves ext_proc on one port and health on another. The ports are taken when it is made (ConfigError)."""

    @property
    def open_streams(self) -> int:
        """ext_proc streams that have not ended."""

    async def start(self) -> None:
        """Serve."""

    async def drain(self) -> None:
        """ext_proc takes no new streams; returns when the open ones have ended. Health goes on."""

    async def stop(self) -> None:
        """Cut what is open, and close both ports."""


@dataclass(frozen=True, slots=True)
class TlsOptions:
    """Of the ext_proc port. `directory` None: a self-signed certificate."""

    directory: Path | None
    reload: bool
    client_ca: Path | None = None
    min_version: str = "VersionTLS12"
    cipher_suites: str = ""
    """Comma-separated IANA names; empty: those of the TLS library."""


@dataclass(frozen=True, slots=True)
class TransportOptions:
    """Sizes in bytes; None: gRPC's default (4 MB received, no limit for what is sent)."""

    host: str
    port: int
    health_port: int
    health_on_both: bool
    tls: TlsOptions | None
    max_recv_bytes: int | None = None
    max_send_bytes: int | None = None


@dataclass(frozen=True, slots=True)
class Served:
    """What is behind the ports."""

    converse: Callable[[Deliver], Conversation]
    metrics: Metrics
    readiness: Readiness


PORT_FLAG = "--grpc-port"
HEALTH_PORT_FLAG = "--grpc-health-port"
