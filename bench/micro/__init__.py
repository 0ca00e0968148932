"""Micro benchmarks: one function each, on one core, medians."""
