"""API keys: those in the configuration, and those in the database."""
