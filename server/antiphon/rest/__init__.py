"""The REST dialects: one module each, JSON to domain values and back, nothing else. Envoy brings their bodies as they were sent."""
