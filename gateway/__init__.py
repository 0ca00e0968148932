"""The command line, the Envoy in front of the picker, and the local stack."""
