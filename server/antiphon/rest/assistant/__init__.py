"""The assistant dialect."""
