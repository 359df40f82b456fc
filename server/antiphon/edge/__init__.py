"""Envoy's configuration: its files, endpoints, certificates and token rules."""
