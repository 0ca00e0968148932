"""Addresses that the processes of a benchmark listen on."""

from __future__ import annotations

import random
import socket

HOST = "127.0.0.1"
# Below the ports that outgoing connections get, so that none of those can be in the way.
_FIRST_PORT, _LAST_PORT = 12_000, 20_000


def free_ports(count: int) -> list[int]:
    """Ports nobody listens on. RuntimeError when there are none."""
    found: list[int] = []
    for port in random.sample(range(_FIRST_PORT, _LAST_PORT), 1000):
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((HOST, port))
            except OSError:
                continue
        found.append(port)
        if len(found) == count:
            return found
    raise RuntimeError(f"no {count} free ports from {_FIRST_PORT} to {_LAST_PORT}")
