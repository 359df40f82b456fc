"""Routing: which provider answers a request."""
