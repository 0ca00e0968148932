"""Tests of the ext_proc door."""
