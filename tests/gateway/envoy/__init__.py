"""Tests of `gateway.envoy`, the real Envoy included."""
