"""The picker behind the real Envoy under mixed load for a long time, with clients that leave and servers that fail."""
