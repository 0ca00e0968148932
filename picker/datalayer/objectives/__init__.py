"""Objectives and model rewrites: who may declare them, and what they say."""
