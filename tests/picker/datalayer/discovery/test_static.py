"""Endpoints from the command line."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence

import pytest

from picker.datalayer.datastore import Datastore
from picker.datalayer.discovery.hosts import Hosts, system_resolve
from picker.datalayer.discovery.source import DiscoverySource
from picker.datalayer.discovery.static import StaticDiscovery, Target, address_name, parse_targets
from picker.errors import ConfigError
from tests.picker.datalayer.servers import until


class Dns:
    """Answers from `table`; a host that is not there does not resolve."""

    def __init__(self, **table: list[str]) -> None:
        self.table = table
        self.asked: list[str] = []

    async def resolve(self, host: str) -> Sequence[str]:
        self.asked.append(host)
        if host not in self.table:
            raise OSError("unknown host")
        return self.table[host]


class Sleep:
    """A sleep that ends when the test says so."""

    def __init__(self) -> None:
        self.asked_s: list[float] = []
        self._wake = asyncio.Event()

    async def __call__(self, seconds: float) -> None:
        self.asked_s.append(seconds)
        await self._wake.wait()
        self._wake.clear()

    async def over(self) -> None:
        count = len(self.asked_s)
        self._wake.set()
        while len(self.asked_s) == count:  # noqa: ASYNC110 - a few turns of the loop, no time
            await asyncio.sleep(0)


def listed(datastore: Datastore) -> dict[str, str]:
    return {s.endpoint.name: s.endpoint.host_port for s in datastore.states()}


def test_targets() -> None:
    assert parse_targets(" 10.0.0.1:80 ,[::1]:8000,Model.Example.:1,a_b-c:65535") == (
        Target("10.0.0.1", 80),
        Target("::1", 8000),
        Target("model.example", 1),
        Target("a_b-c", 65535),
    )


@pytest.mark.parametrize(
    "bad",
    [
        *["", "a", "a:", ":1", "a:0", "a:65536", "a:x", "a:+1", "a:１", "::1:80", "[::1]", "[10.0.0.1]:80", "[a]:80", "256.0.0.1:80"],
        *["1.2.3:80", "-a:1", "a..b:1", "http://a:1", "a b:1", "[fe80::1%eth0]:1", f"{'a' * 64}:1", "a:80/x", "[::1:80"],
    ],
)
def test_bad_targets_are_named(bad: str) -> None:
    with pytest.raises(ConfigError, match=r"expected host:port") as caught:
        parse_targets(f"b:1,{bad}")
    assert repr(bad) in str(caught.value) or not bad


def test_a_target_given_twice() -> None:
    with pytest.raises(ConfigError, match="'A:1' is given twice"):
        parse_targets("a:1,A:1")


def test_names_of_plain_addresses() -> None:
    assert address_name("127.0.0.1", 8001) == "127-0-0-1-8001"
    assert address_name("::1", 80) == "0--1-80"
    assert address_name("1::", 80) == "1--0-80"
    assert address_name("2001:db8::5", 80) == "2001-db8--5-80"


async def test_plain_addresses_need_no_resolver() -> None:
    datastore, dns = Datastore(), Dns()
    discovery = StaticDiscovery("127.0.0.1:8001,[::1]:8000", resolve=dns.resolve, namespace="n", labels={"zone": "x"})
    source: DiscoverySource = discovery
    assert not source.synced
    await source.start(datastore)
    assert source.synced
    assert listed(datastore) == {"127-0-0-1-8001": "127.0.0.1:8001", "0--1-8000": "[::1]:8000"}
    (first, *_) = datastore.states()
    assert (first.endpoint.namespace, first.endpoint.labels) == ("n", {"zone": "x"})
    assert dns.asked == []
    task = asyncio.create_task(source.follow())
    await asyncio.sleep(0)
    assert not task.done()
    task.cancel()


async def test_a_name_stands_for_all_its_addresses_which_keep_their_numbers() -> None:
    datastore, dns, sleep = Datastore(), Dns(pods=["10.0.0.30", "10.0.0.4"]), Sleep()
    discovery = StaticDiscovery("pods:80", resolve=dns.resolve, sleep=sleep, refresh_s=30)
    await discovery.start(datastore)
    assert listed(datastore) == {"pods-0": "10.0.0.4:80", "pods-1": "10.0.0.30:80"}
    task = asyncio.create_task(discovery.follow())
    await until(lambda: bool(sleep.asked_s))
    dns.table["pods"] = ["10.0.0.1", "10.0.0.30", "10.0.0.2", "10.0.0.30"]
    await sleep.over()
    assert listed(datastore) == {"pods-1": "10.0.0.30:80", "pods-0": "10.0.0.1:80", "pods-2": "10.0.0.2:80"}
    for failure in ([], None, ["nonsense"]):
        if failure is None:
            del dns.table["pods"]
        else:
            dns.table["pods"] = failure
        await sleep.over()
        assert len(datastore) == 3, "a failure keeps the last good addresses"
    assert set(sleep.asked_s) == {30}
    task.cancel()


async def test_a_name_that_does_not_resolve_is_tried_again_soon(caplog: pytest.LogCaptureFixture) -> None:
    datastore, dns, sleep = Datastore(), Dns(), Sleep()
    discovery = StaticDiscovery("pods:80,pods:81", resolve=dns.resolve, sleep=sleep, refresh_s=3)
    with caplog.at_level(logging.WARNING):
        await discovery.start(datastore)
        assert not discovery.synced
        task = asyncio.create_task(discovery.follow())
        await until(lambda: bool(sleep.asked_s))
        for _ in range(3):
            await sleep.over()
    assert len(caplog.records) == 1
    assert sleep.asked_s == [1, 2, 3, 3]
    dns.table["pods"] = ["::1"]
    await sleep.over()
    assert discovery.synced
    assert listed(datastore) == {"pods-80-0": "[::1]:80", "pods-81-0": "[::1]:81"}
    task.cancel()


async def test_a_resolver_that_hangs_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("picker.datalayer.discovery.hosts._RESOLVE_TIMEOUT_S", 0.0)

    async def hang(host: str) -> Sequence[str]:
        await asyncio.Event().wait()
        return ()

    hosts = Hosts(resolve=hang)
    hosts.track(["a", "127.0.0.1"])
    assert not await hosts.refresh()
    assert hosts.unresolved == ("a",)
    assert hosts.addresses("127.0.0.1") == ((0, "127.0.0.1"),)


async def test_the_system_resolver() -> None:
    assert set(await system_resolve("localhost")) <= {"127.0.0.1", "::1"}
    with pytest.raises(OSError, match=r"."):
        await system_resolve("")
