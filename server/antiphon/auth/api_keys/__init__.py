"""API keys: of the configuration, and of the database."""
