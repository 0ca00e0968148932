"""Listening sockets, with errors that name the flag."""

from __future__ import annotations

import socket

from picker.endpoint import join_host_port
from picker.errors import ConfigError

BACKLOG = 1024


def listening(host: str, port: int, flag: str) -> socket.socket:
    """A socket that listens. Raises ConfigError naming `flag` when the address cannot be had."""
    try:
        family, kind, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0]
        sock = socket.socket(family, kind)
    except OSError as error:
        raise ConfigError(f"{flag} {port}: cannot listen on {join_host_port(host, port)}: {error.strerror}") from None
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        sock.bind(address)
        sock.listen(BACKLOG)
        sock.setblocking(False)
    except OSError as error:
        sock.close()
        raise ConfigError(f"{flag} {port}: cannot listen on {join_host_port(host, port)}: {error.strerror}") from None
    return sock
