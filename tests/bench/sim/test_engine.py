"""The engine under a fake clock: order, limits, latency, and that nothing is left over."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bench.sim.sequence import Sequence
from tests.bench.sim.rig import Rig


def test_a_lone_request_takes_the_time_of_the_closed_form() -> None:
    rig = Rig()
    sequence = rig.add(list(range(10)), output=5)
    rig.run()
    assert sequence.first_token_at == pytest.approx(0.020 + 10 * 0.001)
    assert rig.now == pytest.approx(0.030 + 4 * 0.010)
    assert rig.value("vllm:time_to_first_token_seconds_sum") == pytest.approx(0.030)
    assert rig.value("vllm:inter_token_latency_seconds_sum") == pytest.approx(0.040)
    assert rig.value("vllm:e2e_request_latency_seconds_sum") == pytest.approx(0.070)
    rig.assert_empty()


def test_latency_grows_with_the_number_running() -> None:
    rig = Rig(time_factor_under_load=3.0, time_to_first_token_ms=0.0, prefill_us_per_token=0.0)
    sequences = [rig.add([n, n, n], output=3) for n in range(4)]
    rig.run()
    assert all(sequence.finished == "length" for sequence in sequences)
    assert rig.now == pytest.approx(2 * 0.010 * 3.0)


def test_requests_beyond_the_limit_wait_in_order() -> None:
    rig = Rig(max_num_seqs=2)
    sequences = [rig.add([n] * 5, output=3) for n in range(5)]
    rig.step()
    assert rig.value("vllm:num_requests_running") == 2
    assert rig.value("vllm:num_requests_waiting") == 3
    assert rig.value("vllm:num_requests_waiting_by_reason", reason="capacity") == 3
    rig.run()
    admitted = [sequence.admitted_at for sequence in sequences]
    assert admitted == sorted(admitted, key=lambda at: at or 0.0)
    assert rig.value("vllm:request_success_total", finished_reason="length") == 5
    rig.assert_empty()


def test_blocks_are_counted_while_the_output_grows() -> None:
    rig = Rig(enable_prefix_caching=False)
    sequence = rig.add([1] * 7, output=6)
    rig.step()
    assert rig.engine.load().kv_usage == pytest.approx(2 / 32)
    while sequence.produced < 4:
        rig.step()
    assert rig.engine.load().kv_usage == pytest.approx(3 / 32)
    rig.run()
    rig.assert_empty()


def test_admission_waits_for_blocks() -> None:
    rig = Rig(num_gpu_blocks=17)
    first, second = rig.add([1] * 40, output=2), rig.add([2] * 40, output=2)
    rig.step()
    load = rig.engine.load()
    assert (load.running, load.waiting) == (1, 1)
    rig.run()
    assert first.finished == second.finished == "length"
    rig.assert_empty()


def test_a_sequence_that_cannot_grow_preempts_the_newest() -> None:
    rig = Rig(num_gpu_blocks=17)
    old, new = rig.add([1] * 31, output=20), rig.add([2] * 31, output=20)
    rig.run()
    assert rig.value("vllm:num_preemptions_total") >= 1
    assert (old.produced, new.produced) == (20, 20)
    assert rig.value("vllm:generation_tokens_total") == 40
    assert rig.value("vllm:prompt_tokens_total") == 62
    rig.assert_empty()


def test_a_long_prompt_is_computed_in_chunks_next_to_decodes() -> None:
    rig = Rig(max_num_batched_tokens=8, time_to_first_token_ms=0.0)
    short = rig.add([1, 2], output=20)
    rig.step()
    long = rig.add([3] * 30, output=1)
    before = short.produced
    while long.finished is None:
        rig.step()
    # 7 prompt tokens a step beside the one decode: 30 tokens take 5 steps.
    assert short.produced - before == 5
    rig.run()
    rig.assert_empty()


def test_a_prefix_hit_shortens_the_prefill() -> None:
    rig = Rig()
    rig.add(list(range(20)), output=1)
    rig.run()
    started = rig.now
    again = rig.add([*range(16), 91, 92, 93, 94], output=1)
    rig.run()
    assert again.cached == 16
    assert rig.now - started == pytest.approx(0.020 + 4 * 0.001)
    assert rig.value("vllm:prefix_cache_queries_total") == 40
    assert rig.value("vllm:prefix_cache_hits_total") == 16


def test_the_last_prompt_token_is_always_computed() -> None:
    rig = Rig()
    for _ in range(2):
        sequence = rig.add(list(range(16)), output=1)
        rig.run()
    assert sequence.cached == 12


def test_the_next_turn_hits_what_was_generated() -> None:
    rig = Rig()
    first = rig.sequence([1, 2, 3, 4], output=9)
    rig.engine.add(first, rig.now)
    rig.run()
    answer = [1000 + 10 + at for at in range(9)]
    turn = rig.add([1, 2, 3, 4, *answer, 7, 7, 7], output=1)
    rig.run()
    assert turn.cached == 12


def test_without_prefix_caching_nothing_is_hit() -> None:
    rig = Rig(enable_prefix_caching=False)
    for _ in range(2):
        sequence = rig.add([5] * 12, output=1)
        rig.run()
    assert sequence.cached == 0


def test_neither_another_adapter_nor_a_reset_cache_is_hit() -> None:
    rig = Rig(enable_lora=True)
    rig.add([5] * 12, output=1, adapter="a")
    rig.run()
    other = rig.add([5] * 12, output=1, adapter="b")
    rig.run()
    rig.engine.reset_prefix_cache()
    same = rig.add([5] * 12, output=1, adapter="a")
    rig.run()
    assert (other.cached, same.cached) == (0, 0)


def test_cached_blocks_are_evicted_oldest_first() -> None:
    rig = Rig(num_gpu_blocks=17)
    for start in (0, 100, 200):
        rig.add(list(range(start, start + 32)), output=1)
        rig.run()
    newest = rig.add([*range(200, 232), 1], output=1)
    rig.run()
    oldest = rig.add([*range(32), 1], output=1)
    rig.run()
    assert (newest.cached, oldest.cached) == (32, 0)


def test_an_adapter_without_a_slot_waits_and_others_pass_it() -> None:
    rig = Rig(enable_lora=True, max_loras=1)
    rig.add([1] * 4, adapter="a")
    blocked = rig.add([2] * 4, adapter="b")
    passing = [rig.add([3] * 4, adapter="a"), rig.add([4] * 4)]
    rig.step()
    assert blocked.admitted_at is None
    assert all(sequence.admitted_at is not None for sequence in passing)
    assert rig.value("vllm:num_requests_waiting_by_reason", reason="deferred") == 1
    held = rig.value("vllm:lora_requests_info", running_lora_adapters="a", waiting_lora_adapters="b")
    rig.run()
    assert blocked.finished == "length"
    assert rig.value("vllm:lora_requests_info", running_lora_adapters="", waiting_lora_adapters="") > held > 0
    rig.assert_empty()


def test_lora_info_is_absent_until_an_adapter_is_used() -> None:
    rig = Rig(enable_lora=True)
    rig.add([1])
    rig.run()
    assert b"lora_requests_info" not in rig.metrics.render(rig.engine.load())


def test_an_abort_frees_everything_at_once() -> None:
    rig = Rig(max_num_seqs=1, enable_lora=True)
    running, waiting = rig.add([1] * 20, output=40, adapter="a"), rig.add([2] * 20, output=40, adapter="b")
    rig.run(until=0.1)
    assert 0 < running.produced < 40
    step = rig.engine.begin_step(rig.now)
    assert step is not None
    told: list[str] = []
    running.notify = lambda: told.append("ended")
    rig.engine.abort(running, rig.now)
    rig.engine.abort(running, rig.now)
    rig.engine.abort(waiting, rig.now)
    rig.assert_empty()
    rig.engine.end_step(step)
    assert told == ["ended"]
    assert (running.finished, waiting.finished) == ("abort", "abort")
    assert rig.value("vllm:request_success_total", finished_reason="abort") == 2
    assert rig.value("vllm:e2e_request_latency_seconds_count") == 0
    assert not rig.step()


def test_a_sequence_without_output_ends_with_its_prefill() -> None:
    rig = Rig()
    sequence = rig.add([1] * 8, output=0, ends_with="stop")
    rig.run()
    assert (sequence.finished, sequence.produced) == ("stop", 0)
    assert rig.now == pytest.approx(0.028)
    rig.assert_empty()


REQUESTS = st.lists(
    st.tuples(
        st.integers(1, 40),
        st.integers(0, 20),
        st.sampled_from([None, "a", "b", "c"]),
        st.booleans(),
        st.integers(0, 12),
    ),
    max_size=12,
)


@settings(max_examples=60, deadline=None)
@given(requests=REQUESTS, slots=st.integers(1, 4), blocks=st.integers(17, 40), caching=st.booleans(), budget=st.integers(4, 64))
def test_whatever_happens_every_request_ends_once_and_nothing_is_left(
    requests: list[tuple[int, int, str | None, bool, int]], slots: int, blocks: int, caching: bool, budget: int
) -> None:
    rig = Rig(
        max_num_seqs=slots,
        num_gpu_blocks=blocks,
        enable_prefix_caching=caching,
        max_num_batched_tokens=budget,
        enable_lora=True,
        max_loras=2,
    )
    sequences: list[Sequence] = []
    endings = [0] * len(requests)
    doomed: list[tuple[int, Sequence]] = []
    for index, (prompt, output, adapter, aborted, steps) in enumerate(requests):
        sequence = rig.add([prompt % 3] * prompt, output, adapter=adapter)

        def ended(at: int = index) -> None:
            endings[at] += sequences[at].finished is not None

        sequence.notify = ended
        sequences.append(sequence)
        if aborted:
            doomed.append((steps, sequence))
    for count in range(13):
        for steps, sequence in doomed:
            if steps == count:
                rig.engine.abort(sequence, rig.now)
        rig.step()
        load = rig.engine.load()
        assert load.running <= slots
        assert 0.0 <= load.kv_usage <= 1.0
    rig.run()
    assert endings == [1] * len(requests)
    assert all(sequence.finished == "abort" or sequence.produced == sequence.output_length for sequence in sequences)
    assert rig.value("vllm:generation_tokens_total") == sum(sequence.produced for sequence in sequences)
    rig.assert_empty()
