"""Endpoints from a file, and what happens when it changes."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from pathlib import Path

import pytest

from picker.datalayer.datastore import Datastore
from picker.datalayer.discovery.document import parse_document
from picker.datalayer.discovery.file import FileDiscovery
from picker.datalayer.discovery.source import DiscoverySource
from picker.errors import ConfigError
from tests.picker.datalayer.servers import until

ONE = "endpoints:\n- {name: a, address: 10.0.0.1, port: 8000}\n"
TWO = ONE + "- {name: b, namespace: n, address: '::1', port: 8001, labels: {zone: north}}\n"


def listed(datastore: Datastore) -> dict[str, str]:
    return {str(s.endpoint): s.endpoint.host_port for s in datastore.states()}


def test_a_document() -> None:
    first, second = parse_document(TWO.encode(), "f")
    assert (first.name, first.namespace, first.address, first.port, first.labels) == ("a", "default", "10.0.0.1", 8000, {})
    assert (second.namespace, second.address, second.labels) == ("n", "::1", {"zone": "north"})
    assert parse_document(b"endpoints: []", "f") == ()
    assert parse_document(b"endpoints: [{name: a, address: '[2001:DB8:0::1]', port: 1}]", "f")[0].address == "2001:db8::1"


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("", ["document: None", "Expected `object`"]),
        ("endpoints:\n- name: a\n  address: 10.0.0.1\n  port: abc\n", ["line 4", "endpoints[0].port", "'abc'", "Expected `int`"]),
        ("endpoints:\n- name: a\n  address: 10.0.0.1\n  port: 0\n", ["line 4", "endpoints[0].port", ": 0:", ">= 1"]),
        ("endpoints:\n- name: a\n  address: 10.0.0.1\n  port: '80'\n", ["endpoints[0].port", "'80'"]),
        ("endpoints:\n- name: a\n  address: 10.0.0.1\n", ["line 2", "endpoints[0]", "port"]),
        (ONE + "- {name: b, address: 10.0.0.2, port: 1, weight: 3}\n", ["line 3", "endpoints[1]", "unknown field `weight`"]),
        ("endpoint: []", ["unknown field `endpoint`"]),
        ("endpoints: {}", ["line 1", "endpoints", "Expected `array`"]),
        (ONE + "- {name: b, address: 10.0.0.999, port: 1}\n", ["line 3", "endpoints[1].address", "'10.0.0.999'", "expected an IPv4"]),
        (ONE + "- {name: b, address: '[10.0.0.2]', port: 1}\n", ["endpoints[1].address"]),
        (ONE + "- {name: b, address: '', port: 1}\n", ["endpoints[1].address", "''"]),
        (ONE + "- {name: a, address: 10.0.0.2, port: 1}\n", ["line 3", "endpoints[1].name", "'a'", "once"]),
        (ONE + "- {name: b, address: 10.0.0.1, port: 8000}\n", ["line 3", "endpoints[1].address", "'10.0.0.1'", "8000 is taken"]),
        ("endpoints:\n- name: a\n  name: b\n", ["line 3", "'name' is given twice"]),
        (ONE + "- {name: b, address: x, port: 1, labels: {a: 1}}\n", ["endpoints[1].labels", "Expected `str`"]),
        (ONE + "- {name: b, address: x, port: 1, labels: {1: a}}\n", ["endpoints[1].labels"]),
        ("endpoints: [\n", ["line 2", "expected YAML"]),
        ("a: b: c", ["line 1", "expected YAML"]),
        ("endpoints: !!python/object:os.system []", ["expected YAML"]),
        ("--- 1\n--- 2\n", ["line 2", "expected YAML"]),
        ("endpoints: \x00", ["expected YAML"]),
        ("endpoints: &a [*a]", ["endpoints[0]"]),
        ("#" * (1024 * 1024 + 1), ["expected at most 1048576 bytes"]),
    ],
)
def test_errors_name_the_place(text: str, parts: list[str]) -> None:
    with pytest.raises(ConfigError) as caught:
        parse_document(text.encode(), "some/file.yaml")
    message = str(caught.value)
    assert message.startswith("some/file.yaml: ")
    for part in parts:
        assert part in message, message


class Nudge:
    """A watch that yields when the test says so."""

    def __init__(self) -> None:
        self._queue: asyncio.Queue[None] = asyncio.Queue()
        self.looks = 0

    def __call__(self, directory: Path, poll_s: float) -> AsyncIterator[object]:
        return self._events()

    async def _events(self) -> AsyncIterator[object]:
        while True:
            await self._queue.get()
            yield None
            self.looks += 1

    async def look(self) -> None:
        wanted = self.looks + 1
        self._queue.put_nowait(None)
        await until(lambda: self.looks == wanted)


class Rig:
    def __init__(self, directory: Path, text: str = ONE, dns: dict[str, list[str]] | None = None) -> None:
        self.path = directory / "endpoints.yaml"
        self.path.write_text(text)
        self.nudge = Nudge()
        self.reloads: list[bool] = []
        self.datastore = Datastore()
        self.now_s = 0.0
        self.dns = dns or {}
        self.discovery = FileDiscovery(
            self.path,
            watch=self.nudge,
            on_reload=self.reloads.append,
            resolve=self._resolve,
            now=lambda: self.now_s,
            wall=lambda: 1000 + self.now_s,
        )

    async def _resolve(self, host: str) -> Sequence[str]:
        if host not in self.dns:
            raise OSError("unknown host")
        return self.dns[host]

    async def begin(self) -> asyncio.Task[None]:
        await self.discovery.start(self.datastore)
        return asyncio.create_task(self.discovery.follow())

    async def write(self, text: str) -> None:
        self.path.write_text(text)
        await self.nudge.look()


async def test_a_bad_change_keeps_the_last_good_list(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    rig = Rig(tmp_path)
    source: DiscoverySource = rig.discovery
    assert not source.synced
    task = await rig.begin()
    assert source.synced
    assert listed(rig.datastore) == {"default/a": "10.0.0.1:8000"}
    await rig.write(TWO)
    assert listed(rig.datastore) == {"default/a": "10.0.0.1:8000", "n/b": "[::1]:8001"}
    assert rig.discovery.status.endpoints == 2
    rig.now_s = 5.0
    await rig.write("endpoints: [")
    await rig.nudge.look()
    assert len(rig.datastore) == 2
    status = rig.discovery.status
    assert status.last_error is not None
    assert "endpoints.yaml: line " in status.last_error
    assert status.loaded_at_s == 1000
    assert caplog.text.count("keeping the last good list of 2 endpoints") == 1
    await rig.write(TWO)
    assert status.last_error is None, "good again, though unchanged"
    await rig.write(ONE)
    assert (len(rig.datastore), status.loaded_at_s) == (1, 1005)
    rig.path.unlink()
    await rig.nudge.look()
    assert status.last_error is not None
    assert len(rig.datastore) == 1
    await rig.write("endpoints: []")
    assert len(rig.datastore) == 0
    assert rig.reloads == [True, True, False, True, True, False, True]
    task.cancel()


@pytest.mark.parametrize("text", ["", "endpoints: 3", "{"])
async def test_a_bad_file_refuses_to_start(tmp_path: Path, text: str) -> None:
    rig = Rig(tmp_path, text)
    with pytest.raises(ConfigError, match=r"endpoints\.yaml"):
        await rig.discovery.start(rig.datastore)
    assert not rig.discovery.synced
    with pytest.raises(ConfigError, match="expected a readable file"):
        await FileDiscovery(tmp_path / "none.yaml").start(Datastore())
    with pytest.raises(ConfigError, match="expected a readable file"):
        await FileDiscovery(tmp_path).start(Datastore())


async def test_names_are_resolved_and_resolved_again(tmp_path: Path) -> None:
    text = "endpoints:\n- {name: a, address: pods, port: 80}\n- {name: b, address: later, port: 81}\n"
    rig = Rig(tmp_path, text, {"pods": ["10.0.0.2", "10.0.0.1"]})
    task = await rig.begin()
    assert listed(rig.datastore) == {"default/a": "10.0.0.1:80", "default/a-1": "10.0.0.2:80"}
    rig.dns["later"] = ["10.0.0.9"]
    await rig.nudge.look()
    assert len(rig.datastore) == 2
    rig.now_s = 5.0
    await rig.nudge.look()
    assert len(rig.datastore) == 3
    rig.dns["pods"] = ["10.0.0.2"]
    rig.now_s = 30.0
    await rig.nudge.look()
    assert len(rig.datastore) == 3
    rig.now_s = 35.0
    await rig.nudge.look()
    assert listed(rig.datastore) == {"default/a-1": "10.0.0.2:80", "default/b": "10.0.0.9:81"}
    task.cancel()


async def test_real_events_renames_and_symlink_swaps(tmp_path: Path) -> None:
    """The way the kubelet changes a mounted ConfigMap: `..data` is a symlink that is replaced by a rename."""
    for version, text in (("..1", ONE), ("..2", TWO)):
        (tmp_path / version).mkdir()
        (tmp_path / version / "endpoints.yaml").write_text(text)
    (tmp_path / "..data").symlink_to("..1")
    (tmp_path / "endpoints.yaml").symlink_to("..data/endpoints.yaml")
    datastore = Datastore()
    discovery = FileDiscovery(tmp_path / "endpoints.yaml", poll_s=0.5)
    await discovery.start(datastore)
    task = asyncio.create_task(discovery.follow())
    assert len(datastore) == 1
    (tmp_path / "..data_tmp").symlink_to("..2")
    (tmp_path / "..data_tmp").rename(tmp_path / "..data")
    await until(lambda: len(datastore) == 2)
    (tmp_path / "new").write_text(ONE)
    (tmp_path / "new").rename(tmp_path / "endpoints.yaml")
    await until(lambda: len(datastore) == 1)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    assert task.cancelled()


async def test_without_events_the_content_is_still_compared(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    async def broken() -> AsyncIterator[object]:
        raise OSError("no watches left")
        yield

    path = tmp_path / "endpoints.yaml"
    path.write_text(ONE)
    datastore = Datastore()
    discovery = FileDiscovery(path, watch=lambda directory, poll_s: broken(), poll_s=0.005)
    await discovery.start(datastore)
    task = asyncio.create_task(discovery.follow())
    path.write_text(TWO)
    await until(lambda: len(datastore) == 2)
    path.write_text(ONE)
    await until(lambda: len(datastore) == 1)
    assert caplog.text.count("cannot watch") == 1
    task.cancel()


async def test_a_file_that_is_not_watched_is_read_once_and_its_names_are_still_resolved(tmp_path: Path) -> None:
    path = tmp_path / "endpoints.yaml"
    path.write_text("endpoints:\n- {name: a, address: model.test, port: 8000}\n")
    addresses = ["10.0.0.1"]
    lookups: list[str] = []

    async def resolve(host: str) -> Sequence[str]:
        lookups.append(host)
        return list(addresses)

    def watch(directory: Path, poll_s: float) -> AsyncIterator[object]:
        raise AssertionError("the directory must not be watched")

    datastore = Datastore()
    discovery = FileDiscovery(path, resolve=resolve, watch=watch, watched=False, poll_s=0.001, refresh_s=0.001)
    await discovery.start(datastore)
    path.write_text(ONE)
    addresses[:] = ["10.0.0.7"]
    task = asyncio.create_task(discovery.follow())
    await until(lambda: len(lookups) > 3)
    task.cancel()
    assert listed(datastore) == {"default/a": "10.0.0.7:8000"}
