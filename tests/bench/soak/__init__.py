"""The soak, for seconds."""
