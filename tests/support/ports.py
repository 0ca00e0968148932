"""Ports nobody uses at the moment."""

from __future__ import annotations

import socket
from contextlib import ExitStack


def free_port() -> int:
    """A TCP port that was free a moment ago, on every address of this machine."""
    return free_ports(1)[0]


def free_ports(count: int) -> list[int]:
    """`count` different ones."""
    with ExitStack() as held:
        sockets = [held.enter_context(socket.socket()) for _ in range(count)]
        for sock in sockets:
            sock.bind(("0.0.0.0", 0))
        return [int(sock.getsockname()[1]) for sock in sockets]
