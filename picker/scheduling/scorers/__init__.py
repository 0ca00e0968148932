"""Scorers. Formulas are those of the endpoint-picker contract, section 4.1."""
