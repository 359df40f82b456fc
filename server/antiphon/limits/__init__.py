"""Limits on use: requests and tokens per minute, concurrent calls, and USD per day and month."""
