"""Sources and extractors at work: real HTTP(S) servers, and pollings in virtual time."""

from __future__ import annotations

import asyncio
import logging
import ssl as tls
from pathlib import Path
from typing import Any

import pytest

from picker.datalayer.collector import Collector
from picker.datalayer.datastore import Datastore
from picker.datalayer.extractor_plugins import CoreMetricsExtractor, CoreMetricsParameters, ModelsDataExtractor, ModelsParameters
from picker.datalayer.http_reader import ReadError
from picker.datalayer.pace import Pace
from picker.datalayer.parts import AttachedSource
from picker.datalayer.polling import FetchReader, SourcePolling
from picker.datalayer.source_plugins import (
    EndpointNotificationSource,
    HttpSourceParameters,
    MetricsDataSource,
    ModelsDataSource,
)
from picker.endpoint import Endpoint, EndpointMetrics
from picker.plugin import EndpointEvent, Extracted, NoParameters
from tests.picker.datalayer.rig import Clock, FakeReader
from tests.picker.datalayer.servers import Server, until
from tests.support.tls import issue

HANDLE: Any = None
MODELS = b'{"object":"list","data":[{"id":"base","parent":null},{"id":"sql","parent":"base"}]}'
PAGE = b"vllm:num_requests_waiting 3\nvllm:num_requests_running 2\nheat 7\n"


def answer(body: bytes, status: str = "200 OK") -> bytes:
    return b"HTTP/1.1 %s\r\nContent-Length: %d\r\n\r\n%s" % (status.encode(), len(body), body)


def metrics_source(**parameters: Any) -> MetricsDataSource:
    return MetricsDataSource("metrics", HttpSourceParameters(**parameters), HANDLE)


def models_source(**parameters: Any) -> ModelsDataSource:
    return ModelsDataSource("models", HttpSourceParameters(**parameters), HANDLE)


def core() -> CoreMetricsExtractor:
    return CoreMetricsExtractor("core", CoreMetricsParameters(), HANDLE)


def models_extractor(**parameters: Any) -> ModelsDataExtractor:
    return ModelsDataExtractor("models-x", ModelsParameters(**parameters), HANDLE)


class Heat:
    """Reads one number, and fails where there is none."""

    type = "heat"
    name = "heat"

    def extract(self, endpoint: Endpoint, body: bytes) -> Extracted:
        return Extracted(attributes={"heat": float(body.split(b"heat ")[1].split()[0])})


class Running:
    """A Collector, and what it counted."""

    def __init__(self, *sources: AttachedSource) -> None:
        self.datastore = Datastore()
        self.polls: list[str] = []
        self.extracts: list[tuple[str, str]] = []
        self.reads = 0
        self.collector = Collector(
            self.datastore,
            sources,
            pace=Pace(interval_s=0.05),
            on_read=self._read,
            on_poll_error=self.polls.append,
            on_extract_error=lambda source, extractor: self.extracts.append((source, extractor)),
        )

    def _read(self) -> None:
        self.reads += 1

    async def __aenter__(self) -> Running:
        self.collector.start()
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self.collector.stop()

    def add(self, *ports: int) -> None:
        self.datastore.set_endpoints("t", [Endpoint(f"e{port}", "127.0.0.1", port) for port in ports])

    @property
    def metrics(self) -> EndpointMetrics:
        return next(iter(self.datastore.states())).metrics


async def test_metrics_and_models_of_real_servers() -> None:
    async with (
        Server(answer(PAGE)) as pages,
        Server(answer(MODELS)) as models,
        Running(
            AttachedSource(metrics_source(path="/m"), core(), [Heat()]),
            AttachedSource(models_source(port=models.port, interval="50ms"), extractors=[models_extractor()]),
        ) as running,
    ):
        running.add(pages.port)
        await until(lambda: "heat" in running.metrics.attributes and "models" in running.metrics.names)
        metrics = running.metrics
        assert (metrics.waiting, metrics.running, dict(metrics.attributes)) == (3, 2, {"heat": 7.0})
        assert dict(metrics.names) == {"models": frozenset({"base", "sql"}), "base-models": frozenset({"base"})}
        assert list(running.datastore.snapshot().names("models")) == [frozenset({"base", "sql"})]
        assert pages.requests[0].startswith(b"GET /m HTTP/1.1\r\n")
        assert models.requests[0].startswith(b"GET /v1/models HTTP/1.1\r\n")
        assert b"Accept: application/json\r\n" in models.requests[0]
        await until(lambda: len(models.requests) >= 3)
        assert models.connections == 1, "one kept connection"
        assert (running.polls, running.extracts) == ([], [])


async def test_what_fails_is_counted_and_the_old_data_stays(caplog: pytest.LogCaptureFixture) -> None:
    script = [answer(MODELS), answer(b"", "503 Busy"), answer(b'{"data": 5}'), answer(b"<html>")]
    async with (
        Server(*script) as server,
        Running(AttachedSource(models_source(interval="50ms"), extractors=[models_extractor()])) as running,
    ):
        running.add(server.port)
        await until(lambda: len(running.extracts) >= 2)
        assert running.metrics.names["models"] == {"base", "sql"}
        assert running.polls == ["models-data-source"]
        assert set(running.extracts) == {("models-data-source", "models-data-extractor")}
        assert len([r for r in caplog.records if "models-x" in r.message]) == 1, "the second failure is held back"


async def test_an_extractor_that_raises_does_not_hinder_the_others() -> None:
    class Broken:
        type = name = "broken"

        def extract(self, endpoint: Endpoint, body: bytes) -> Extracted | None:
            raise RuntimeError("boom")

    async with Server(answer(PAGE)) as server, Running(AttachedSource(metrics_source(), core(), [Broken(), Heat()])) as running:
        running.add(server.port)
        await until(lambda: "heat" in running.metrics.attributes)
        assert running.metrics.waiting == 3
        assert ("metrics-data-source", "broken") in running.extracts


async def test_endpoints_that_go_are_not_polled_and_those_that_come_are() -> None:
    async with (
        Server(answer(MODELS)) as one,
        Server(answer(MODELS)) as two,
        Running(AttachedSource(models_source(interval="50ms"), extractors=[models_extractor()])) as running,
    ):
        running.add(one.port)
        await until(lambda: len(one.requests) >= 2)
        running.add(two.port)
        asked = len(one.requests)
        await until(lambda: len(two.requests) >= 3)
        assert len(one.requests) <= asked + 1, "one may have been under way"


async def test_tls_with_and_without_verification(tmp_path: Path) -> None:
    issue(tmp_path, "server")
    context = tls.SSLContext(tls.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(tmp_path / "tls.crt", tmp_path / "tls.key")
    other = tmp_path / "other"
    other.mkdir()
    issue(other, "other")
    for parameters, trusted in (
        ({}, True),
        ({"insecure_skip_verify": False, "ca_cert_path": str(tmp_path / "tls.crt")}, True),
        ({"insecure_skip_verify": False, "ca_cert_path": str(other / "tls.crt")}, False),
    ):
        async with (
            Server(answer(PAGE), ssl=context) as server,
            Running(AttachedSource(metrics_source(scheme="https", **parameters), core())) as running,
        ):
            running.add(server.port)
            if trusted:
                await until(lambda r=running: r.metrics.waiting == 3)  # type: ignore[misc]
            else:
                await until(lambda r=running: "metrics-data-source" in r.polls)  # type: ignore[misc]
                assert running.metrics.updated_s is None


async def test_a_client_certificate_is_shown(tmp_path: Path) -> None:
    issue(tmp_path, "both")
    certificate, key = str(tmp_path / "tls.crt"), str(tmp_path / "tls.key")
    context = tls.SSLContext(tls.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    context.verify_mode = tls.CERT_REQUIRED
    context.load_verify_locations(certificate)
    source = models_source(scheme="https", client_cert_path=certificate, client_key_path=key, interval="50ms")
    async with (
        Server(answer(MODELS), ssl=context) as server,
        Running(AttachedSource(source, extractors=[models_extractor()])) as running,
    ):
        running.add(server.port)
        await until(lambda: "models" in running.metrics.names)


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"path": "metrics"}, "begins with '/'"),
        ({"port": 70000}, "port 70000: expected 1 to 65535"),
        ({"interval": "10ms"}, "interval '10ms': expected at least 50ms"),
        ({"interval": "often"}, "'often' is not a duration"),
        ({"ca_cert_path": "/x"}, "certificates are only used with scheme: https"),
        ({"scheme": "https", "ca_cert_path": "/x"}, "set insecureSkipVerify: false"),
        ({"scheme": "https", "insecure_skip_verify": False, "ca_cert_path": "/no/such"}, "caCertPath '/no/such'"),
        ({"scheme": "https", "client_cert_path": "/x"}, "belong together"),
        ({"scheme": "https", "client_cert_path": "/no/a", "client_key_path": "/no/b"}, "expected a PEM certificate and its key"),
    ],
)
def test_parameters_that_cannot_work_are_refused(parameters: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        metrics_source(**parameters)


def test_a_longer_list_of_models_than_allowed_is_refused() -> None:
    endpoint = Endpoint("a", "10.0.0.1", 1)
    assert models_extractor(max_models=2).extract(endpoint, MODELS).names["models"] == {"base", "sql"}
    with pytest.raises(ValueError, match="2 models, expected at most 1"):
        models_extractor(max_models=1).extract(endpoint, MODELS)


# ---- a source in Python


class Fetched:
    """A DataSource whose answers are scripted."""

    type = name = "mine"
    interval_s = 0.05

    def __init__(self, *answers: Any) -> None:
        self.answers = list(answers)
        self.closed = 0

    async def fetch(self, endpoint: Endpoint) -> bytes:
        found = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        if isinstance(found, Exception):
            raise found
        result: bytes = found
        return result

    async def close(self) -> None:
        self.closed += 1


async def test_a_source_in_python() -> None:
    source = Fetched(RuntimeError("boom"), "no bytes", b"heat 9")
    async with Running(AttachedSource(source, extractors=[Heat()])) as running:
        running.add(1)
        await until(lambda: running.metrics.attributes.get("heat") == 9.0)
        assert running.polls == ["mine", "mine"]
    assert source.closed == 1


async def test_a_fetch_that_hangs_is_given_up() -> None:
    class Hanging(Fetched):
        async def fetch(self, endpoint: Endpoint) -> bytes:
            await asyncio.Event().wait()
            return b""

    results: list[bytes | ReadError] = []
    reader = FetchReader(Hanging(b""), Endpoint("a", "10.0.0.1", 1), timeout_s=0.01)
    reader.read(results.append)
    await until(lambda: bool(results))
    (result,) = results
    assert isinstance(result, ReadError)
    assert result.kind == "timeout"
    reader.read(results.append)
    reader.close()
    await reader.wait_closed()
    assert len(results) == 1, "not called after close"


# ---- in virtual time


async def test_the_interval_and_what_follows_a_failure() -> None:
    clock = Clock()
    datastore = Datastore(now=clock.now)
    readers: list[FakeReader] = []

    def reader(endpoint: Endpoint) -> FakeReader:
        readers.append(FakeReader(clock))
        return readers[-1]

    bodies: list[bytes] = []
    errors: list[None] = []
    polling = SourcePolling(
        datastore,
        "s",
        interval_s=10.0,
        reader=reader,
        on_body=lambda state, body: bodies.append(body),
        on_error=lambda: errors.append(None),
        now=clock.now,
        call_later=clock.call_later,
    )
    datastore.set_endpoints("t", [Endpoint("a", "10.0.0.1", 1)])
    polling.start()
    (only,) = readers
    clock.run(20.5)
    assert only.begun == [0.0, 10.0, 20.0]
    only.answer = ReadError("unreachable", "refused")
    clock.run(30.0)
    assert only.begun[3:] == [30.0, 31.0, 33.0, 37.0, 45.0]
    only.answer = b"x"
    clock.run(20.0)
    assert only.begun[8:] == [55.0, 65.0]
    assert (len(bodies), len(errors)) == (5, 5)
    datastore.set_endpoints("t", [])
    assert only.closed
    assert clock.pending == 0
    await polling.stop()


# ---- notifications


class Watching:
    """Notes events, and fails on demand."""

    type = name = "watching"

    def __init__(self) -> None:
        self.events: list[tuple[str, str]] = []
        self.broken = False

    def endpoint_event(self, event: EndpointEvent, endpoint: Endpoint) -> Extracted | None:
        self.events.append((event, endpoint.name))
        if self.broken:
            raise RuntimeError("boom")
        return Extracted(attributes={"weight": float(endpoint.labels.get("weight", "1"))})


async def test_endpoints_that_come_change_and_go() -> None:
    first, second = Watching(), Watching()
    first.broken = True
    source = EndpointNotificationSource("events", NoParameters(), HANDLE)
    running = Running(AttachedSource(source, event_extractors=[first, second]))
    old = Endpoint("old", "10.0.0.9", 1)
    running.datastore.set_endpoints("t", [old])
    async with running:
        assert second.events == [("add", "old")]
        a = Endpoint("a", "10.0.0.1", 1)
        running.datastore.set_endpoints("t", [old, a])
        assert list(running.datastore.snapshot().attribute("weight")) == [1.0, 1.0]
        running.datastore.set_endpoints("t", [old, Endpoint("a", "10.0.0.1", 1, labels={"weight": "3"})])
        assert list(running.datastore.snapshot().attribute("weight")) == [1.0, 3.0]
        running.datastore.set_endpoints("t", [old])
        expected = [("add", "old"), ("add", "a"), ("update", "a"), ("delete", "a")]
        assert first.events == second.events == expected
        assert running.extracts == [("endpoint-notification-source", "watching")] * 4
    running.datastore.set_endpoints("t", [])
    assert len(second.events) == 4, "nothing is told after the stop"


async def test_no_metrics_source_is_said(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.WARNING)
    async with Running() as running:
        running.add(1)
        assert running.collector.paces() == {"full": 0, "idle": 0, "failing": 0}
        assert running.collector.interval_s(next(iter(running.datastore.states()))) is None
    assert "endpoints are not scraped" in caplog.text
