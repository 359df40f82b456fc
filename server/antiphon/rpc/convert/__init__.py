"""Typed messages to domain values and back."""
