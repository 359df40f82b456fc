"""Outgoing HTTP, addresses and certificates."""
