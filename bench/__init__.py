"""What proves fairlead's claims: the model-server simulator and the benchmarks."""
