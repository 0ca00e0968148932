"""IP literals and DNS names as addresses of endpoints.

A DNS name stands for all its addresses. Each gets a number when it is first seen and keeps it as long as it resolves, so that an
address that joins does not rename the others, which would cost them their load and metrics.
"""

from __future__ import annotations

import asyncio
import ipaddress
import logging
import re
import socket
import time
from collections.abc import Awaitable, Callable, Iterable, Sequence

from picker.datalayer.throttle import Throttle

log = logging.getLogger(__name__)

_DNS_LABEL = re.compile(r"[A-Za-z0-9_]([A-Za-z0-9_-]{0,61}[A-Za-z0-9_])?")
_RESOLVE_TIMEOUT_S = 5.0
EXPECTED_HOST = "an IPv4 address, an IPv6 address or a DNS name"

Resolve = Callable[[str], Awaitable[Sequence[str]]]
"""All addresses of a DNS name. Raises OSError."""


async def system_resolve(host: str) -> Sequence[str]:
    """The addresses the system knows for `host`. Raises OSError."""
    found = await asyncio.get_running_loop().getaddrinfo(host, None, type=socket.SOCK_STREAM)
    return sorted({str(entry[4][0]) for entry in found})


def canonical_host(text: str) -> str | None:
    """The usual spelling of an IP literal (without brackets) or DNS name; None if it is neither."""
    try:
        return str(ipaddress.ip_address(text)) if "%" not in text else None
    except ValueError:
        pass
    labels = text.removesuffix(".").split(".")
    if len(text) > 253 or labels[-1].isdigit() or not all(_DNS_LABEL.fullmatch(label) for label in labels):
        return None
    return text.removesuffix(".").lower()


def is_ip(host: str) -> bool:
    """Whether a canonical host is an IP literal."""
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True


class Hosts:
    """The last good addresses of some DNS names. IP literals stand for themselves."""

    def __init__(self, *, resolve: Resolve = system_resolve, now: Callable[[], float] = time.monotonic) -> None:
        self._resolve = resolve
        self._now = now
        self._addresses: dict[str, dict[str, int]] = {}
        self._throttles: dict[str, Throttle] = {}

    def track(self, hosts: Iterable[str]) -> None:
        """The canonical hosts that matter from now on; addresses of others are forgotten."""
        names = {host for host in hosts if not is_ip(host)}
        self._addresses = {name: self._addresses.get(name, {}) for name in sorted(names)}
        self._throttles = {name: self._throttles.get(name) or Throttle(60.0, now=self._now) for name in sorted(names)}

    @property
    def names(self) -> Sequence[str]:
        """The DNS names tracked."""
        return tuple(self._addresses)

    @property
    def unresolved(self) -> Sequence[str]:
        """The DNS names for which there has been no answer yet."""
        return tuple(name for name, known in self._addresses.items() if not known)

    def addresses(self, host: str) -> Sequence[tuple[int, str]]:
        """Number and address of each place `host` stands for, by number; empty if it has not been resolved."""
        if host not in self._addresses:
            return ((0, host),)
        return sorted((number, address) for address, number in self._addresses[host].items())

    async def refresh(self) -> bool:
        """Resolve every name again, all at once; whether anything changed. A failure keeps the last good addresses and is logged."""
        before = {name: tuple(known.items()) for name, known in self._addresses.items()}
        async with asyncio.TaskGroup() as group:
            for name in before:
                group.create_task(self._refresh(name), name=f"resolve {name}")
        return before != {name: tuple(known.items()) for name, known in self._addresses.items()}

    async def _refresh(self, name: str) -> None:
        try:
            async with asyncio.timeout(_RESOLVE_TIMEOUT_S):
                found = await self._resolve(name)
            addresses = {canonical for text in found if (canonical := canonical_host(text)) is not None and is_ip(canonical)}
            if not addresses:
                raise OSError("no address")
        except (OSError, UnicodeError, TimeoutError) as error:
            throttle, known = self._throttles.get(name), self._addresses.get(name)
            if throttle is not None and throttle.ready():
                log.warning("cannot resolve %s, keeping %d addresses: %s", name, len(known or ()), error or "timed out")
            return
        if name in self._addresses:  # still tracked
            self._addresses[name] = _number(self._addresses[name], addresses)


def _number(known: dict[str, int], addresses: set[str]) -> dict[str, int]:
    numbered = {address: number for address, number in known.items() if address in addresses}
    taken = set(numbered.values())
    free = (number for number in range(len(known) + len(addresses)) if number not in taken)
    for address in sorted(addresses - numbered.keys(), key=lambda a: ipaddress.ip_address(a).packed):
        numbered[address] = next(free)
    return numbered
