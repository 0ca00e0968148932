"""Tests of `gateway.local`."""
