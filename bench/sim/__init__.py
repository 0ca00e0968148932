"""A simulated vLLM server: its HTTP surface, its metrics and a step-by-step engine, without a model."""
