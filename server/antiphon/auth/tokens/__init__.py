"""Authentication with tokens of identity providers."""
