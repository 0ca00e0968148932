"""Which endpoints exist, what they report, and the snapshots that the scheduler reads."""
