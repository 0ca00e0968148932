"""Tests of the bench behind the real Envoy."""
