"""Filters of requests and replies: text that a guard finds is masked, or ends the call."""
