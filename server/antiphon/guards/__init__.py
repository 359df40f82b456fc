"""Filters of requests and replies: what may not pass is masked, or ends the call."""
