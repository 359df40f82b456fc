"""The analytics dialect."""
