"""The ext_proc door: one gRPC stream per HTTP request, from a proxy that asks where to send it."""
