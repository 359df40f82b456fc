"""What Envoy is given: its files, endpoints, certificates and token rules."""
