"""How often an endpoint is read: ever more rarely while nothing happens there, at the full rate as soon as something does."""

from __future__ import annotations

import itertools

import pytest

from picker.datalayer.load_report import LoadReport
from picker.datalayer.pace import Pace
from picker.endpoint import Endpoint
from tests.picker.datalayer.rig import BUSY, DEAD, MISSING, SLOW, Rig

IDLE = b"vllm:num_requests_waiting 0\nvllm:num_requests_running 0\nvllm:kv_cache_usage_perc 0\n"
FULL = b"vllm:num_requests_waiting 0\nvllm:num_requests_running 0\nvllm:kv_cache_usage_perc 0.5\n"
RUNNING = b"vllm:num_requests_waiting 0\nvllm:num_requests_running 1\nvllm:kv_cache_usage_perc 0\n"
WAITING = b"vllm:num_requests_waiting 1\nvllm:num_requests_running 0\nvllm:kv_cache_usage_perc 0\n"


def idle(endpoints: int = 1, *, adaptive: bool = True) -> Rig:
    """A pool that has been idle for long."""
    rig = Rig(endpoints, adaptive=adaptive)
    for reader in rig.readers:
        reader.answer = IDLE
    rig.clock.run(10.0)
    rig.gaps()
    return rig


def test_pauses_double_while_nothing_happens() -> None:
    rig = Rig()
    rig.reader.answer = IDLE
    rig.clock.run(8.0)
    gaps = rig.gaps()
    assert gaps[:4] == [0.1, 0.2, 0.4, 0.8]
    assert 0.1 <= gaps[4] <= 1.0, "of its own length"
    assert set(gaps[5:]) == {1.0}
    assert rig.scraper.interval_s(rig.state) == 1.0
    assert rig.scraper.paces() == {"full": 0, "idle": 1, "failing": 0}


def test_at_the_fixed_rate_they_do_not() -> None:
    rig = idle(adaptive=False)
    rig.clock.run(1.0)
    assert set(rig.gaps()) == {0.1}
    assert rig.state.metrics.quiet_s == 0.0
    assert rig.scraper.paces() == {"full": 1, "idle": 0, "failing": 0}


@pytest.mark.parametrize("page", [RUNNING, WAITING])
def test_a_server_with_work_of_others_is_read_at_the_full_rate_from_the_next_read_on(page: bytes) -> None:
    rig = idle()
    rig.reader.answer = page
    rig.clock.run(3.0)
    gaps = rig.gaps()
    assert gaps[0] == 1.0, "nobody tells us"
    assert set(gaps[1:]) == {0.1}
    assert rig.state.metrics.quiet_s == 0.0


def test_changed_numbers_are_a_sign_of_work() -> None:
    rig = idle()
    rig.reader.answer = FULL
    rig.clock.run(4.0)
    assert rig.gaps()[:5] == [1.0, 0.1, 0.2, 0.4, 0.8]


def test_the_first_request_wakes_within_one_interval_but_not_before_it_can_have_arrived() -> None:
    rig = idle()
    now_s = rig.clock.now_s
    mark = rig.state.load.open_request(1)
    rig.clock.run(1.0)
    first, *rest = rig.reader.begun[1:]
    assert 0.019 < first - now_s <= 0.1
    assert {round(b - a, 6) for a, b in itertools.pairwise([first, *rest])} == {0.1}
    assert rig.state.load.unseen == 0
    rig.state.load.close_request(mark)
    rig.clock.run(10.0)
    assert rig.gaps()[-1] == 1.0


def test_a_request_that_ends_between_two_reads_leaves_nothing_behind() -> None:
    rig = idle()
    load = rig.state.load
    for _ in range(3):
        load.close_request(load.open_request(1))
        assert (load.requests, load.unseen) == (0, 0)
    first, second = load.open_request(1), load.open_request(1)
    assert load.unseen == 2
    rig.reader.delay_s = 0.05
    rig.clock.run(0.05)  # the read is under way
    load.close_request(first)
    third = load.open_request(1)
    assert load.unseen == 2
    rig.clock.run(0.1)
    assert load.unseen <= 1
    for mark in (second, third):
        load.close_request(mark)
    assert (load.requests, load.unseen) == (0, 0)


def test_a_short_request_keeps_the_rate_up_for_the_next_read() -> None:
    rig = idle()
    load = rig.state.load
    load.close_request(load.open_request(1))
    rig.clock.run(1.2)
    assert rig.gaps()[1:4] == [0.1, 0.2, 0.4], "the page after it is not the end of a quiet time"


def test_opening_requests_at_the_full_rate_costs_no_timer() -> None:
    rig = Rig()
    rig.reader.answer = IDLE
    rig.clock.run(0.05)
    load = rig.state.load
    assert load.on_open is None
    timers = rig.clock.pending
    for _ in range(100):
        load.open_request(1)
    assert (rig.clock.pending, load.on_open) == (timers, None)


def test_only_the_first_of_many_requests_wakes() -> None:
    rig = idle()
    load = rig.state.load
    assert load.on_open is not None
    load.open_request(1)
    assert load.on_open is None
    for _ in range(10):
        load.open_request(1)
    assert rig.clock.pending == 1


def test_a_read_that_is_due_anyway_is_not_put_off() -> None:
    rig = idle()
    rig.clock.run(1.0 - (rig.clock.now_s - rig.reader.begun[-1]) - 0.001)
    rig.gaps()
    rig.state.load.open_request(1)
    rig.clock.run(0.15)
    assert rig.gaps() == [1.0, 0.1]


def test_idle_metrics_are_not_stale_and_silence_is() -> None:
    rig = idle()
    limit_s = 0.2  # the utilization detector's
    for _ in range(100):
        rig.clock.run(0.03)
        assert not rig.state.metrics.is_stale(rig.clock.now_s, limit_s)
    rig.reader.answer = SLOW
    rig.clock.run(1.5)
    assert rig.state.metrics.is_stale(rig.clock.now_s, limit_s)


@pytest.mark.parametrize("answer", [DEAD, SLOW])
def test_failures_on_an_idle_endpoint_are_counted_at_the_full_rate(answer: object) -> None:
    rig = idle()
    rig.reader.answer = answer  # type: ignore[assignment]
    rig.clock.run(1.6)
    assert rig.gaps()[:3] == [1.0, 0.1, 0.1]
    assert not rig.state.alive
    assert rig.state.load.on_open is None, "nobody wakes a dead endpoint"
    assert rig.scraper.paces() == {"full": 0, "idle": 0, "failing": 1}
    rig.reader.answer = IDLE
    rig.clock.run(12.0)
    assert rig.state.alive
    assert rig.gaps()[-1] == 1.0


@pytest.mark.parametrize("answer", [MISSING, BUSY])
def test_routing_does_not_hurry_servers_without_metrics(answer: object) -> None:
    rig = idle()
    rig.reader.answer = answer  # type: ignore[assignment]
    rig.clock.run(6.0)
    rig.gaps()
    rig.state.load.open_request(1)
    rig.clock.run(3.0)
    assert set(rig.gaps()) == {1.0}


def test_the_quiet_that_was_promised_ends_with_a_wake_up() -> None:
    rig = idle()
    assert rig.state.metrics.quiet_s == 1.0
    rig.clock.run(0.3)
    woken_s = rig.clock.now_s
    rig.state.load.open_request(1)
    # From the read that the wake-up has brought forward on, silence is silence.
    asked_s = (rig.state.metrics.updated_s or 0.0) + rig.state.metrics.quiet_s
    assert asked_s <= woken_s + 0.1


def test_a_report_of_a_server_whose_reports_are_of_no_use_is_not_taken() -> None:
    rig = Rig(1)
    assert not rig.datastore.report_load("127.0.0.1:8000", LoadReport(7, 0.25, rig.clock.now_s))
    rig.reader.answer = b'vllm:num_requests_waiting{engine="0"} 20\nvllm:num_requests_waiting{engine="1"} 20\n'
    rig.clock.run(1.0)
    assert not rig.datastore.report_load("127.0.0.1:8000", LoadReport(7, 0.25, rig.clock.now_s))
    assert rig.state.metrics.waiting == 40


def test_a_hang_up_during_a_long_pause_is_looked_into() -> None:
    rig = idle()
    rig.reader.hang_up()
    now_s = rig.clock.now_s
    rig.reader.answer = DEAD
    rig.clock.run(0.35)
    assert rig.reader.begun[1] - now_s <= 0.1
    assert not rig.state.alive
    rig.reader.answer = IDLE
    rig.clock.run(12.0)
    rig.gaps()
    rig.reader.hang_up()
    rig.clock.run(2.5)
    gaps = rig.gaps()
    assert gaps[0] < 1.0
    assert set(gaps[1:]) == {1.0}, "a server that only dropped the connection is as idle as before"


def test_a_hang_up_at_the_full_rate_changes_nothing() -> None:
    rig = Rig()
    rig.clock.run(0.55)
    rig.gaps()
    rig.reader.hang_up()
    rig.clock.run(1.0)
    assert set(rig.gaps()) == {0.1}


async def test_stopping_leaves_no_wake_up_behind() -> None:
    rig = idle()
    load = rig.state.load
    await rig.scraper.stop()
    assert load.on_open is None
    load.open_request(1)
    assert rig.clock.pending == 0


def test_long_intervals_are_the_longest_pause() -> None:
    assert Pace(interval_s=5.0).slow_s == 5.0
    assert Pace(interval_s=0.05).slow_s == 1.0


def greatest_bunch(rig: Rig, since_s: float, window_s: float) -> int:
    """The most reads that began within `window_s` of each other."""
    times = sorted(t for reader in rig.readers for t in reader.begun if t > since_s)
    return max(sum(1 for t in times[i:] if t < times[i] + window_s) for i in range(len(times)))


def test_reads_of_many_idle_endpoints_are_spread_over_the_second() -> None:
    rig = idle(100)
    since_s = rig.clock.now_s
    rig.clock.run(5.0)
    assert sum(t > since_s for reader in rig.readers for t in reader.begun) == pytest.approx(500, abs=100)
    assert greatest_bunch(rig, since_s, 0.1) <= 16, "ten would be perfect"


def test_endpoints_woken_together_are_not_read_together() -> None:
    rig = idle(100)
    since_s = rig.clock.now_s
    for state in rig.datastore.states():
        state.load.open_request(1)
    rig.clock.run(0.5)
    assert greatest_bunch(rig, since_s, 0.01) <= 16, "ten would be perfect"


def test_a_loop_that_stood_still_does_not_leave_reads_in_step() -> None:
    rig = Rig(100)
    rig.clock.run(1.0)
    rig.clock.stall(0.25)
    since_s = rig.clock.now_s + 0.2
    rig.clock.run(1.0)
    assert greatest_bunch(rig, since_s, 0.01) <= 16


def test_a_header_that_came_during_a_read_is_newer_than_its_page() -> None:
    rig = Rig()
    rig.reader.answer = RUNNING
    rig.clock.run(0.05)
    rig.reader.delay_s = 0.04
    rig.clock.run(0.07)  # a read has begun
    rig.datastore.report_load("127.0.0.1:8000", LoadReport(7, 0.25, rig.clock.now_s))
    assert (rig.state.metrics.waiting, rig.state.metrics.kv_usage) == (7, 0.25)
    rig.clock.run(0.03)  # its page says 0 and 0
    assert (rig.state.metrics.waiting, rig.state.metrics.kv_usage, rig.state.metrics.running) == (7, 0.25, 1)
    rig.clock.run(0.1)
    assert (rig.state.metrics.waiting, rig.state.metrics.kv_usage) == (0, 0.0), "the next page is newer than the header"


def test_a_header_that_tells_one_number_holds_back_only_that_one() -> None:
    rig = Rig()
    rig.reader.answer = RUNNING
    rig.clock.run(0.05)
    rig.reader.answer = FULL
    rig.reader.delay_s = 0.04
    rig.clock.run(0.07)  # a read has begun
    rig.datastore.report_load("127.0.0.1:8000", LoadReport(7, None, rig.clock.now_s))
    rig.clock.run(0.03)
    assert (rig.state.metrics.waiting, rig.state.metrics.kv_usage) == (7, 0.5)


def test_a_header_before_a_read_is_older_than_its_page() -> None:
    rig = Rig()
    rig.reader.answer = IDLE
    rig.clock.run(0.05)
    rig.datastore.report_load("127.0.0.1:8000", LoadReport(7, 0.25, rig.clock.now_s))
    rig.clock.run(0.06)
    assert (rig.state.metrics.waiting, rig.state.metrics.kv_usage) == (0, 0.0)


def test_a_header_leaves_what_it_does_not_tell_and_the_unseen_requests_alone() -> None:
    rig = Rig()
    rig.clock.run(0.05)
    before = rig.state.metrics
    rig.state.load.open_request(1)
    assert rig.datastore.report_load("127.0.0.1:8000", LoadReport(None, 0.25, rig.clock.now_s))
    after = rig.state.metrics
    assert (after.waiting, after.running, after.kv_usage, after.updated_s) == (before.waiting, before.running, 0.25, 0.05)
    assert after.reports_load
    assert rig.state.load.unseen == 1
    assert rig.datastore.snapshot().kv_usage == (0.25,)
    rig.datastore.set_endpoints("t", [Endpoint("other", "127.0.0.1", 9)])
    assert not rig.datastore.report_load("127.0.0.1:8000", LoadReport(1, 1.0, rig.clock.now_s))
