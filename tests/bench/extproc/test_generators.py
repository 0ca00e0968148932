"""What h2load and wrk say."""

from __future__ import annotations

import pytest

from bench.extproc import generators
from bench.extproc.generators import installed, read_h2load, read_wrk
from bench.processes import Failed

SUMMARY = "finished in 2.01s\nrequests: 4 total, 6 started, 4 done, 4 succeeded, {} failed, {} errored, {} timeout\n"


def test_h2load_tells_each_request() -> None:
    found = read_h2load(SUMMARY.format(0, 0, 0), "1\t200\t1000\n2\t200\t3000\n3\t200\t2000\n", 2.0)
    assert (found.requests, found.seconds, found.errors) == (3, 2.0, {})
    assert found.latencies == {"p50_ms": 2.0}


def test_h2load_requests_that_failed_are_errors() -> None:
    found = read_h2load(SUMMARY.format(2, 0, 1), "1\t200\t1000\n2\t503\t3000\n3\t503\t2000\n", 2.0)
    assert found.errors == {"h2load: failed": 2, "h2load: timed out": 1, "status 503": 2}
    assert found.requests == 1


def test_h2load_without_a_summary_has_failed() -> None:
    with pytest.raises(Failed, match="no summary"):
        read_h2load("could not connect\n", "", 2.0)


def test_wrk_tells_percentiles() -> None:
    found = read_wrk("Running 2s test\nbench\t4000\t2000000\t1500\t2500\t3500\t0\t0\n")
    assert (found.requests, found.seconds, found.errors) == (4000, 2.0, {})
    assert found.latencies == {"p50_ms": 1.5, "p95_ms": 2.5, "p99_ms": 3.5}


def test_wrk_errors_are_errors() -> None:
    found = read_wrk("bench\t4000\t2000000\t1500\t2500\t3500\t2\t30\n")
    assert found.errors == {"wrk: socket errors": 2, "wrk: bad status": 30}
    assert found.requests == 3970


def test_wrk_without_our_line_has_failed() -> None:
    with pytest.raises(Failed, match="no summary"):
        read_wrk("unable to connect\n")


def test_the_first_client_there_is_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    there: set[str] = set()
    monkeypatch.setattr(generators.shutil, "which", lambda name: f"/bin/{name}" if name in there else None)
    assert installed(None) == "own"
    there.add("wrk")
    assert installed(None) == "wrk"
    there.add("h2load")
    assert installed(None) == "h2load"
    assert installed("own") == "own"
    there.remove("wrk")
    with pytest.raises(ValueError, match="wrk is not on PATH"):
        installed("wrk")
