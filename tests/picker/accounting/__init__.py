"""Tests of response readers."""
