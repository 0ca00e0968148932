"""Helpers that several test packages share: processes, fake servers, clients that do not use the code under test."""
