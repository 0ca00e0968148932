"""Settings that all tests share."""

from __future__ import annotations

import os

from hypothesis import HealthCheck, settings

# Tests start processes while gRPC runs in this one. Its fork handlers would start threads in the child, on files that are closed: SIGABRT.
os.environ["GRPC_ENABLE_FORK_SUPPORT"] = "0"

# A busy machine is no failure: no example has to be quick.
settings.register_profile("patient", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("patient")
