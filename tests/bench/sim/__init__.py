"""Tests of the model-server simulator."""
