"""Clients, the real Envoy, the picker and simulated model servers, all as processes of their own."""
