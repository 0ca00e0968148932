"""Tests of request bodies."""
