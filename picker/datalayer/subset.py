"""Which endpoints a subset hint means: `ip:port` is one endpoint, a bare IP is every port of it.

Hints come from the proxy (`x-gateway-destination-endpoint-subset`); those that match nothing are passed over.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Sequence

from picker.endpoint import Endpoint, join_host_port
from picker.snapshot import Candidates, Snapshot


class AddressIndex:
    """Positions by address and by `host:port`. Good for every snapshot that has this very tuple of endpoints."""

    __slots__ = ("_by_address", "_by_host_port", "endpoints")

    def __init__(self, endpoints: tuple[Endpoint, ...]) -> None:
        self.endpoints = endpoints
        self._by_host_port: dict[str, int] = {}
        self._by_address: dict[str, list[int]] = {}
        for position, endpoint in enumerate(endpoints):
            address = canonical_address(endpoint.address)
            self._by_host_port[join_host_port(address, endpoint.port)] = position
            self._by_address.setdefault(address, []).append(position)

    def positions(self, hint: str) -> Sequence[int]:
        """Positions of the endpoints that one hint means, ascending."""
        exact = self._by_host_port.get(hint)
        if exact is not None:
            return (exact,)
        if hint.count(":") > 1 or hint.startswith("["):
            return self._ipv6_positions(hint)
        return self._by_address.get(hint, ())

    def _ipv6_positions(self, hint: str) -> Sequence[int]:
        """`[::1]:8000`, `[::1]` or `::1`, in any spelling of the address."""
        if not hint.startswith("["):
            return self._by_address.get(canonical_address(hint), ())
        host, closed, rest = hint[1:].partition("]")
        if not closed or ":" not in host:
            return ()
        address = canonical_address(host)
        if not rest:
            return self._by_address.get(address, ())
        exact = self._by_host_port.get(f"[{address}]{rest}")
        return () if exact is None else (exact,)


def canonical_address(address: str) -> str:
    """The shortest spelling of an IPv6 address; everything else unchanged."""
    if ":" not in address:
        return address
    try:
        return str(ipaddress.IPv6Address(address))
    except ValueError:
        return address


def match_subset(snapshot: Snapshot, hints: Sequence[str], index: AddressIndex | None = None) -> Candidates:
    """The endpoints of `snapshot` that the hints mean, in snapshot order.

    The work is in proportion to the hints and their matches, given an `index` of the same endpoints; without one it is built.
    """
    if index is None or index.endpoints is not snapshot.endpoints:
        index = AddressIndex(snapshot.endpoints)
    found: set[int] = set()
    for hint in hints:
        found.update(index.positions(hint.strip()))
    positions = sorted(found)
    endpoints = snapshot.endpoints
    return Candidates(snapshot, positions, tuple([endpoints[p] for p in positions]))
