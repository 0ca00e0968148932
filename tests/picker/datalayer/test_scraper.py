"""Pollers in virtual time, and the scraper with real servers."""

from __future__ import annotations

import asyncio
import logging
import ssl
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from picker.datalayer.datastore import Datastore
from picker.datalayer.http_reader import ReadError, ReadErrorKind
from picker.datalayer.pace import Pace
from picker.datalayer.scraper import Scraper
from picker.endpoint import Endpoint, EndpointMetrics
from picker.errors import ConfigError
from tests.picker.datalayer.rig import BUSY, DEAD, GARBAGE, MISSING, PAGE, SLOW, Rig
from tests.picker.datalayer.servers import Server, until


def test_a_steady_beat_and_known_ages() -> None:
    rig = Rig()
    rig.clock.run(1.0)
    assert rig.gaps() == [0.1] * 10
    assert rig.state.metrics == EndpointMetrics(waiting=3, running=2, updated_s=rig.state.metrics.updated_s, reports_load=True)
    assert rig.state.metrics.age_s(1.5) == pytest.approx(0.5)


def test_slow_answers_do_not_overlap_and_leave_the_server_a_rest() -> None:
    rig = Rig()
    rig.reader.delay_s = 0.03
    rig.clock.run(0.5)
    assert set(rig.gaps()) == {0.1}
    rig.reader.delay_s = 0.08
    rig.clock.run(1.0)
    assert set(rig.gaps()[2:]) == {0.16}
    rig.reader.delay_s = 1.0
    rig.clock.run(5.0)
    assert set(rig.gaps()[2:]) == {1.1}


def test_the_load_learns_what_each_scrape_has_seen() -> None:
    rig = Rig()
    load = rig.state.load
    rig.clock.run(0.05)
    load.open_request(1)
    rig.reader.delay_s = 0.04
    rig.clock.run(0.07)  # a read has begun, and is not answered yet
    load.open_request(1)
    assert load.unseen == 2
    rig.clock.run(0.03)
    assert load.unseen == 1
    rig.reader.answer = BUSY
    rig.clock.run(1.0)
    assert load.unseen == 1, "a failed scrape has seen nothing"
    rig.reader.answer = b"nothing_of_ours 1\n"
    rig.clock.run(3.0)
    assert load.unseen == 1
    rig.reader.answer = PAGE
    rig.clock.run(3.0)
    assert load.unseen == 0


@pytest.mark.parametrize(("answer", "kind", "limit"), [(DEAD, "unreachable", 3), (SLOW, "timeout", 5)])
def test_death_and_return(answer: ReadError, kind: str, limit: int) -> None:
    rig = Rig()
    rig.clock.run(0.15)
    rig.gaps()
    rig.reader.answer = answer
    rig.clock.run(0.1 * (limit - 1))
    assert rig.state.alive
    assert len(rig.datastore.snapshot()) == 1
    rig.clock.run(0.1)
    assert not rig.state.alive
    assert len(rig.datastore.snapshot()) == 0
    assert rig.errors == [kind] * limit
    rig.gaps()
    rig.clock.run(10.0)
    assert rig.gaps()[:6] == [0.1, 0.2, 0.4, 0.8, 1.0, 1.0]
    assert rig.state.metrics.waiting == 3, "old values stay, their age tells"
    assert rig.state.metrics.updated_s == pytest.approx(0.1)
    rig.reader.answer = PAGE
    rig.clock.run(1.0)
    assert rig.state.alive
    rig.gaps()
    rig.clock.run(1.0)
    assert set(rig.gaps()) == {0.1}


def test_a_mixture_of_failures_counts_and_an_answer_starts_anew() -> None:
    rig = Rig()
    for answer in (DEAD, DEAD, BUSY, DEAD, SLOW, DEAD):
        rig.reader.answer = answer
        rig.reader.begun.clear()
        while not rig.reader.begun:
            rig.clock.run(0.05)
        rig.clock.run(0.001)
    assert rig.state.alive
    rig.reader.answer = DEAD
    rig.clock.run(0.3)
    assert not rig.state.alive


@pytest.mark.parametrize("answer", [MISSING, BUSY])
def test_any_status_is_a_sign_of_life(answer: ReadError) -> None:
    rig = Rig()
    rig.reader.answer = DEAD
    rig.clock.run(3.0)
    assert not rig.state.alive
    rig.reader.answer = answer
    rig.clock.run(2.0)
    assert rig.state.alive
    assert rig.state.metrics.updated_s is None


def test_garbage_is_neither_life_nor_death() -> None:
    rig = Rig()
    rig.reader.answer = GARBAGE
    rig.clock.run(30.0)
    assert rig.state.alive
    rig.reader.answer = DEAD
    rig.clock.run(4.0)
    assert not rig.state.alive
    rig.reader.answer = GARBAGE
    rig.clock.run(4.0)
    assert not rig.state.alive


@pytest.mark.parametrize("answer", [MISSING, b"nothing_of_ours 1\n"])
def test_no_metrics_is_logged_once_and_polled_slowly(answer: bytes | ReadError, caplog: pytest.LogCaptureFixture) -> None:
    rig = Rig()
    rig.reader.answer = answer
    with caplog.at_level(logging.INFO):
        rig.clock.run(10.0)
    assert rig.gaps()[-4:] == [1.0] * 4
    assert len(caplog.records) == 1
    assert rig.state.alive
    assert bool(rig.extract_errors) == isinstance(answer, bytes)
    rig.reader.answer = PAGE
    rig.clock.run(2.0)
    assert rig.state.metrics.waiting == 3
    assert rig.gaps()[-1] == 0.1


def test_a_fault_of_our_own_does_not_end_the_polling(caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch) -> None:
    rig = Rig()

    def fail(*args: object) -> bool:
        raise ValueError("no")

    with monkeypatch.context() as patched:
        patched.setattr(Datastore, "report", fail)
        rig.clock.run(3.0)
    assert len(caplog.records) == 1
    rig.clock.run(2.0)
    assert rig.state.metrics.waiting == 3


def test_a_changed_engine_label_is_followed() -> None:
    rig = Rig()
    rig.clock.run(0.25)
    rig.datastore.set_endpoints("t", [Endpoint("e0", "127.0.0.1", 8000, labels={"llm-d.ai/engine-type": "sglang"})])
    rig.reader.answer = b"vllm:num_requests_waiting 9\nsglang:num_queue_reqs 7\n"
    rig.clock.run(0.25)
    assert rig.state.metrics.waiting == 7


async def test_pollers_come_and_go_with_their_endpoints() -> None:
    rig = Rig(3)
    rig.clock.run(0.5)
    assert len({reader.begun[0] for reader in rig.readers}) == 3, "starts are spread"
    rig.datastore.set_endpoints("t", [Endpoint("e1", "127.0.0.1", 8001), Endpoint("e9", "127.0.0.1", 8009)])
    assert [reader.closed for reader in rig.readers] == [True, False, True, False]
    rig.clock.run(0.5)
    counts = [len(reader.begun) for reader in rig.readers]
    await rig.scraper.stop()
    rig.clock.run(1.0)
    assert [len(reader.begun) for reader in rig.readers] == counts
    assert all(reader.closed for reader in rig.readers)
    assert rig.clock.pending == 0
    rig.datastore.set_endpoints("t", [])
    rig.scraper.start()
    await rig.scraper.stop()


async def test_with_real_servers() -> None:
    good = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s" % (len(PAGE), PAGE)
    async with Server(good) as first, Server(good) as second, Server(good) as gone:
        datastore = Datastore()
        scraper = Scraper(datastore, pace=Pace(interval_s=0.005))
        ports = [first.port, second.port, gone.port]
        datastore.set_endpoints("t", [Endpoint(f"e{n}", "127.0.0.1", port) for n, port in enumerate(ports)])
        await gone.__aexit__()
        scraper.start()
        await until(lambda: min(len(first.requests), len(second.requests)) >= 5 and len(datastore.snapshot()) == 2)
        assert datastore.snapshot().waiting == (3, 3)
        assert (first.connections, second.connections) == (1, 1)
        datastore.set_endpoints("t", [Endpoint("e1", "127.0.0.1", second.port)])
        await scraper.stop()
        assert not [task for task in asyncio.all_tasks() if task.get_name().startswith("dial")]


async def test_one_port_for_the_metrics_of_all() -> None:
    good = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s" % (len(PAGE), PAGE)
    async with Server(good) as server:
        datastore = Datastore()
        datastore.set_endpoints("t", [Endpoint("e", "127.0.0.1", 1)])
        scraper = Scraper(datastore, port=server.port, path="/m")
        scraper.start()
        await until(lambda: bool(datastore.snapshot().waiting[0]))
        await scraper.stop()
        assert server.requests[0].startswith(b"GET /m HTTP/1.1\r\nHost: 127.0.0.1:%d\r\n" % server.port)


async def test_https_with_a_certificate_of_the_servers_own_making(tmp_path: Path) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(self_signed(tmp_path))
    good = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s" % (len(PAGE), PAGE)
    async with Server(good, ssl=context) as server:
        datastore = Datastore()
        datastore.set_endpoints("t", [Endpoint("e", "127.0.0.1", server.port)])
        scraper = Scraper(datastore, scheme="https", pace=Pace(interval_s=0.01))
        scraper.start()
        await until(lambda: len(server.requests) >= 3 and bool(datastore.snapshot().waiting[0]))
        await scraper.stop()
        assert server.connections == 1
        errors: list[ReadErrorKind] = []
        strict = Scraper(datastore, scheme="https", ssl=ssl.create_default_context(), on_error=errors.append)
        strict.start()
        await until(lambda: bool(errors))
        await strict.stop()
        assert errors[0] == "unreachable"


def self_signed(directory: Path) -> Path:
    """A file with a key and a certificate for nobody in particular."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "model-server")])
    start = datetime(2020, 1, 1, tzinfo=UTC)
    builder = x509.CertificateBuilder().subject_name(name).issuer_name(name).public_key(key.public_key()).serial_number(1)
    certificate = builder.not_valid_before(start).not_valid_after(start + timedelta(days=36500)).sign(key, hashes.SHA256())
    path = directory / "both.pem"
    path.write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
        + certificate.public_bytes(serialization.Encoding.PEM)
    )
    return path


def test_settings_that_cannot_be_used() -> None:
    for text, settings in {
        "scheme": {"scheme": "ftp"},
        "interval": {"pace": Pace(interval_s=0)},
        "timeout": {"timeout_s": -1.0},
        "port": {"port": 70000},
    }.items():
        with pytest.raises(ConfigError, match=text):
            Scraper(Datastore(), **settings)  # type: ignore[arg-type]
