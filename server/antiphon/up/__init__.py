"""The processes of one machine: workers and Envoy, started, watched and stopped together."""
