"""Usage out of gRPC answers."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from picker.accounting.grpc_usage import VllmUsageReader
from picker.request import UsageFormat
from picker.result import Usage
from tests.support.vllm_grpc import chunk, complete, embedding, field, frame

GENERATE, EMBED = UsageFormat.VLLM_GENERATE, UsageFormat.VLLM_EMBED


def usage(body: bytes, format: UsageFormat = GENERATE, step: int = 1 << 20) -> Usage | None:
    reader = VllmUsageReader(format)
    for start in range(0, len(body), step):
        reader.feed(body[start : start + step])
    return reader.finish()


STREAM = chunk([1, 300], 7, 2, 4) + chunk([70_000], 7, 1, 4) + complete([70_000], 7, 1, 4)
CASES = [
    ("not streamed", complete([1, 2, 3], 7, 3, 2), Usage(7, 3, 10, 2)),
    ("ids without a count", complete([1, 2, 3], 7), Usage(7, 3, 10)),
    ("new tokens in each message, the last repeats its own", STREAM, Usage(7, 3, 10, 4)),
    ("counts grow from message to message", chunk([5], 7, 1) + chunk([6], 7, 2) + complete([5, 6], 7, 2), Usage(7, 2, 9)),
    ("a stream that was left", chunk([5], 7, 1) + chunk([6, 7], 7, 2), Usage(7, 3, 10)),
    (
        "two samples",
        chunk([5], 7, 1) + chunk([6, 7], 7, 2, index=1) + complete([5], 7, 1) + complete([6, 7], 7, 2, index=1),
        Usage(7, 3, 10),
    ),
    ("nothing", b"", None),
    ("an empty message", frame(b""), None),
    ("no answer", b"no healthy upstream", None),
    ("one message compressed", chunk([5], 7, 1) + frame(b"??", 1), Usage(7, None, None)),
    ("one message damaged", chunk([5], 7, 1) + frame(b"\x0a\x7f"), Usage(7, None, None)),
    ("a count of another type", frame(field(2, field(3, b"x"))), None),
    ("a count beyond reason", complete([], 2**40, 2**40), None),
]


@pytest.mark.parametrize(("name", "body", "expected"), CASES, ids=[case[0] for case in CASES])
@pytest.mark.parametrize("step", [1, 3, 1000])
def test_generate(name: str, body: bytes, expected: Usage | None, step: int) -> None:
    assert usage(body, step=step) == expected


@pytest.mark.parametrize("step", [1000, 16_384, 1 << 20])
def test_embed(step: int) -> None:
    assert usage(embedding(16_384, 12), EMBED, step) == Usage(12, None, 12)


def test_samples_are_counted_up_to_a_bound() -> None:
    assert usage(b"".join(complete([1], 7, 1, index=i) for i in range(1024))) == Usage(7, 1024, 1031)
    assert usage(b"".join(complete([1], 7, 1, index=i) for i in range(1025))) == Usage(7)


@given(st.binary(max_size=100), st.integers(0, 100), st.integers(1, 10), st.sampled_from([GENERATE, EMBED]))
def test_any_bytes_in_any_cut(noise: bytes, at: int, step: int, format: UsageFormat) -> None:
    body = STREAM[:at] + noise + STREAM[at:]
    assert usage(body, format, step) == usage(body, format)
    usage(frame(noise), format)
