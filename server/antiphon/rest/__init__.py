"""The REST dialects: one folder each, which converts JSON to domain values and back. Envoy passes bodies on unchanged."""
