"""Tests of the picker; mirrors its source tree."""
