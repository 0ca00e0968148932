"""How long a request may wait, whatever a client writes into its headers."""

from __future__ import annotations

import pytest

from picker.admission.flow.limits import request_ttl_s

DEFAULT_S = 60.0


@pytest.mark.parametrize(
    ("headers", "ttl_s"),
    [
        ({}, 60.0),
        ({"x-request-timeout-ms": "1500"}, 1.5),
        ({"x-request-timeout-ms": "60001"}, 60.0),
        ({"x-request-timeout-ms": "-1"}, 60.0),
        ({"x-request-timeout-ms": "0"}, 60.0),
        ({"x-request-timeout-ms": "1e3"}, 60.0),
        ({"x-request-timeout-ms": "nan"}, 60.0),
        ({"x-request-timeout-ms": " 1500"}, 60.0),
        ({"x-request-timeout-ms": "²"}, 60.0),
        ({"x-request-timeout-ms": "9" * 5000}, 60.0),
        ({"grpc-timeout": "250m"}, 0.25),
        ({"grpc-timeout": "2S"}, 2.0),
        ({"grpc-timeout": "5M"}, 60.0),
        ({"grpc-timeout": "99999999H"}, 60.0),
        ({"grpc-timeout": "999999999n"}, 60.0),
        ({"grpc-timeout": "-1S"}, 60.0),
        ({"grpc-timeout": "S"}, 60.0),
        ({"grpc-timeout": "5"}, 60.0),
        ({"grpc-timeout": "5s"}, 60.0),
        ({"x-request-timeout-ms": "1500", "grpc-timeout": "1S"}, 1.5),
        ({"x-request-timeout-ms": "", "grpc-timeout": "1S"}, 1.0),
    ],
)
def test_a_client_may_shorten_its_wait_and_nothing_else(headers: dict[str, str], ttl_s: float) -> None:
    assert request_ttl_s(headers, DEFAULT_S) == ttl_s
