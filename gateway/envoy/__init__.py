"""The Envoy side: a typed bootstrap, its rendering, and the process that runs it."""
