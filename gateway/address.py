"""`host:port` as one value: parsing, printing, and the check that a port is still free."""

import errno
import ipaddress
import socket
from typing import NamedTuple, Self


class HostPort(NamedTuple):
    """A TCP address. `host` is a name or an IP address; an IPv6 address is held without brackets."""

    host: str
    port: int

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read `host:port` or `[v6]:port`; ValueError says what is wrong with it."""
        host, colon, port = text.strip().rpartition(":")
        if not colon or not host or not (port.isascii() and port.isdigit()):
            raise ValueError(f"{text!r} is not host:port")
        if not 1 <= int(port) <= 65535:
            raise ValueError(f"{text!r}: port {port} is not within 1..65535")
        if host.startswith("[") and host.endswith("]"):
            host = host[1:-1]
        elif ":" in host:
            raise ValueError(f"{text!r}: write an IPv6 address in brackets, as [::1]:8080")
        return cls(host, int(port))

    @property
    def is_ip(self) -> bool:
        """Whether `host` is an IP address rather than a name."""
        try:
            ipaddress.ip_address(self.host)
        except ValueError:
            return False
        return True

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


class PortClaim(NamedTuple):
    """A port somebody is about to listen on: where, what for, and the flag that moves it."""

    address: HostPort
    purpose: str
    flag: str


def conflict(claim: PortClaim) -> str | None:
    """Say in one line why `claim` cannot be bound, or None when it can.

    Binding is tried rather than connecting: Envoy listens with SO_REUSEPORT, so a second one would start without an
    error and take a share of the first one's connections.
    """
    address = claim.address
    family = socket.AF_INET6 if ":" in address.host else socket.AF_INET
    try:
        with socket.socket(family, socket.SOCK_STREAM) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind((address.host, address.port))
    except OSError as error:
        reason = "is in use" if error.errno == errno.EADDRINUSE else f"cannot be bound on {address.host} ({error.strerror or error})"
        return f"port {address.port} ({claim.purpose}) {reason}; choose another with {claim.flag}"
    return None


def conflicts(claims: list[PortClaim]) -> list[str]:
    """Every reason not to start: ports somebody else holds, and ports claimed twice among `claims`."""
    problems: list[str] = []
    first: dict[HostPort, PortClaim] = {}
    for claim in claims:
        earlier = first.setdefault(claim.address, claim)
        if earlier is not claim:
            problems.append(
                f"port {claim.address.port} ({claim.purpose}) is also the port of {earlier.purpose}; choose another with {claim.flag}"
            )
        elif (problem := conflict(claim)) is not None:
            problems.append(problem)
    return problems
