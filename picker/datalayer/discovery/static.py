"""Endpoints given on the command line: `--endpoints host:port,host:port`."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping
from typing import NamedTuple

from picker.datalayer.datastore import Datastore
from picker.datalayer.discovery.hosts import Hosts, Resolve, canonical_host, is_ip, system_resolve
from picker.endpoint import Endpoint
from picker.errors import ConfigError

_EXPECTED = "host:port, where host is an IPv4 address, an IPv6 address in brackets or a DNS name, and port is 1 to 65535"


class Target(NamedTuple):
    """One item of the list; `host` is an IP literal or a DNS name in its usual spelling."""

    host: str
    port: int


def parse_targets(text: str) -> tuple[Target, ...]:
    """Items separated by commas. Raises ConfigError that quotes the bad item and says what was expected."""
    targets: list[Target] = []
    for item in [part.strip() for part in text.split(",")]:
        if not item:
            raise ConfigError(f"endpoints {text!r}: an item is empty, expected {_EXPECTED}")
        target = _parse_target(item)
        if target in targets:
            raise ConfigError(f"endpoints: {item!r} is given twice")
        targets.append(target)
    return tuple(targets)


def _parse_target(item: str) -> Target:
    host_text, colon, port_text = item.rpartition(":")
    bracketed = host_text.startswith("[") and host_text.endswith("]")
    host = canonical_host(host_text[1:-1] if bracketed else host_text) if host_text else None
    if not colon or host is None or bracketed != (":" in host):
        raise ConfigError(f"endpoints: {item!r}: expected {_EXPECTED}")
    if not (port_text.isascii() and port_text.isdigit() and len(port_text) <= 5 and 1 <= int(port_text) <= 65535):
        raise ConfigError(f"endpoints: {item!r}: port {port_text!r}, expected {_EXPECTED}")
    return Target(host, int(port_text))


def address_name(address: str, port: int) -> str:
    """`10-0-0-1-8000`; an IPv6 address keeps its `::` as two dashes, with a zero where a name may not begin or end with one."""
    name = address.replace(".", "-").replace(":", "-")
    return f"{'0' if name.startswith('-') else ''}{name}{'0' if name.endswith('-') else ''}-{port}"


class StaticDiscovery:
    """A fixed list of hosts; DNS names are resolved again every `refresh_s` seconds. A DiscoverySource."""

    def __init__(
        self,
        endpoints: str,
        *,
        source: str = "static",
        namespace: str = "default",
        labels: Mapping[str, str] | None = None,
        refresh_s: float = 30.0,
        resolve: Resolve = system_resolve,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        """`endpoints` is the comma-separated list. Raises ConfigError."""
        self.source = source
        self._targets = parse_targets(endpoints)
        self._namespace = namespace
        self._labels = dict(labels or {})
        self._refresh_s = refresh_s
        self._sleep = sleep
        self._hosts = Hosts(resolve=resolve, now=now)
        self._hosts.track(target.host for target in self._targets)
        self._datastore: Datastore | None = None
        self._synced = False

    @property
    def synced(self) -> bool:
        """Whether at least one host is known by address."""
        return self._synced

    async def start(self, datastore: Datastore) -> None:
        """Resolve and hand over. A name that does not resolve is logged and tried again by `follow`."""
        self._datastore = datastore
        await self._hosts.refresh()
        self._hand_over(datastore)

    async def follow(self) -> None:
        """Resolve again and again; names without any address at short intervals first, 1 s and doubling."""
        assert self._datastore is not None, "start comes first"
        if not self._hosts.names:
            await asyncio.Event().wait()
        pause_s = 1.0
        while True:
            pause_s = min(pause_s, self._refresh_s) if self._hosts.unresolved else self._refresh_s
            await self._sleep(pause_s)
            pause_s *= 2
            if await self._hosts.refresh():
                self._hand_over(self._datastore)

    def _hand_over(self, datastore: Datastore) -> None:
        endpoints = [self._endpoint(target, number, address) for target in self._targets for number, address in self._addresses(target)]
        datastore.set_endpoints(self.source, endpoints)
        self._synced = self._synced or bool(endpoints)

    def _addresses(self, target: Target) -> list[tuple[int, str]]:
        return list(self._hosts.addresses(target.host))

    def _endpoint(self, target: Target, number: int, address: str) -> Endpoint:
        if is_ip(target.host):
            name = address_name(address, target.port)
        else:
            several = sum(other.host == target.host for other in self._targets) > 1
            name = f"{target.host}-{target.port}-{number}" if several else f"{target.host}-{number}"
        return Endpoint(name, address, target.port, self._namespace, self._labels)
