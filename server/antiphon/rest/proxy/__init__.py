"""The proxy paths."""
