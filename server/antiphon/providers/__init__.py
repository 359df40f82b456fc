"""Upstream LLM providers: one file for each wire protocol. Hosts that speak a known protocol are rows in `hosts`, not code."""
