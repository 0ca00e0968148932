"""Objectives and model rewrites."""
