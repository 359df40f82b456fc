"""The engine dialect."""
