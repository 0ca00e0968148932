"""Filters, scorers, pickers, profiles and the prefix index, without a socket or a loop."""
