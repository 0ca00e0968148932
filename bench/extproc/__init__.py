"""The picker behind the real Envoy, measured against Envoy alone, an echo, and other pickers, in one interleaved run."""
